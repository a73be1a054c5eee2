"""WordNet: short texts with classes and relations, from local files.

`read_synsets` reads the database of WordNet 3.0 as its authors distribute it, four
files of one line a synset, and as Debian's package `wordnet-base` installs it. A
*synset* is a meaning; its *gloss* says it in words. Its lexicographer file is its
topic (noun.animal, verb.motion, ...), 45 in all.

The format: https://wordnet.princeton.edu/documentation/wndb5wn
"""

from __future__ import annotations

import dataclasses
import pathlib
import re

FOLDER = pathlib.Path("/usr/share/wordnet")
"""Where Debian's package `wordnet-base` puts the files."""

FILES = {"n": "data.noun", "v": "data.verb", "a": "data.adj", "r": "data.adv"}
"""The file of each part of speech."""

TOPICS = (
    *("adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal"),
    *("noun.artifact", "noun.attribute", "noun.body", "noun.cognition"),
    *("noun.communication", "noun.event", "noun.feeling", "noun.food", "noun.group"),
    *("noun.location", "noun.motive", "noun.object", "noun.person"),
    *("noun.phenomenon", "noun.plant", "noun.possession", "noun.process"),
    *("noun.quantity", "noun.relation", "noun.shape", "noun.state"),
    *("noun.substance", "noun.time", "verb.body", "verb.change", "verb.cognition"),
    *("verb.communication", "verb.competition", "verb.consumption", "verb.contact"),
    *("verb.creation", "verb.emotion", "verb.motion", "verb.perception"),
    *("verb.possession", "verb.social", "verb.stative", "verb.weather", "adj.ppl"),
)
"""The lexicographer files in the order of their numbers."""

_HYPERNYM, _ANTONYM = "@", "!"


@dataclasses.dataclass(frozen=True)
class Synset:
    """A meaning.

    Attributes:
        key: its part of speech (one of `FILES`) and its offset, unique.
        topic: the number of its lexicographer file, an index into `TOPICS`.
        words: the words and phrases that have this meaning.
        gloss: what it means, without examples of use.
        hypernyms: keys of the next more general meanings; of an instance (a person,
            a place) none.
        antonyms: keys of the meanings that one of its words is opposed to.
    """

    key: str
    topic: int
    words: tuple[str, ...]
    gloss: str
    hypernyms: tuple[str, ...]
    antonyms: tuple[str, ...]


def read_synsets(folder: str | pathlib.Path | None = None) -> dict[str, Synset]:
    """All synsets by their keys, in the order of the files.

    Args:
        folder: holds the files of `FILES`; by default Debian's.

    Raises:
        FileNotFoundError: if one of the files is missing.
        ValueError: if a line is not in WordNet's format.
    """
    folder = FOLDER if folder is None else pathlib.Path(folder).expanduser()
    synsets = {}
    for part, name in FILES.items():
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(
                f"The folder must hold {', '.join(FILES.values())} of WordNet 3.0; "
                "on Debian `apt-get install wordnet-base` puts them into "
                f"{FOLDER}. Received: folder={str(folder)!r} without {name}"
            )
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if line.startswith("  "):  # the license
                continue
            try:
                synset = parse_line(part, line)
            except (ValueError, IndexError) as error:
                raise ValueError(
                    "Each line must be a synset in WordNet's format, "
                    "'offset topic type count word id ... count pointer ... | gloss'. "
                    f"Received: {line[:60]!r}, line {number} of {path}"
                ) from error
            synsets[synset.key] = synset
    return synsets


def parse_line(part: str, line: str) -> Synset:
    """The synset in a line of the file of one part of speech.

    Raises:
        ValueError, IndexError: if the line is not in the format.
    """
    fields, gloss = line.split("|", 1)
    offset, topic, _, word_count, *rest = fields.split()
    if not 0 <= int(topic) < len(TOPICS):
        raise ValueError(topic)
    words = rest[: 2 * int(word_count, 16) : 2]
    rest = rest[2 * int(word_count, 16) :]
    pointers = [rest[i : i + 4] for i in range(1, 1 + 4 * int(rest[0]), 4)]

    def targets(wanted: str) -> tuple[str, ...]:
        found = [part + offset for kind, offset, part, _ in pointers if kind == wanted]
        return tuple(dict.fromkeys(found))  # each once

    return Synset(
        key=part + offset,
        topic=int(topic),
        words=tuple(word.replace("_", " ") for word in words),
        gloss=without_examples(gloss),
        hypernyms=targets(_HYPERNYM),
        antonyms=targets(_ANTONYM),
    )


def without_examples(gloss: str) -> str:
    """A gloss up to its examples of use, which stand in quotes.

    >>> without_examples('move fast; "He ran"; "run!"; on foot')
    'move fast; on foot'
    """
    gloss = re.sub(r'"[^"]*("|$)', "", gloss)  # the last quote may not be closed
    parts = [re.sub(r"\s+", " ", part).strip(" ,:-") for part in gloss.split(";")]
    return "; ".join(part for part in parts if part)
