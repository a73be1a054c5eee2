"""Text classification data: single texts, or pairs of a premise and a hypothesis.

`load(task)` knows three tasks, the first two from WordNet's files, no download:

- `glosses`: which of 45 topics a meaning belongs to, by its gloss;
- `pairs`: what the gloss of one meaning says of another, in the shape of MNLI.
  Entailment: the hypothesis is the next more general meaning. Contradiction: the two
  are opposed, or different kinds of the same. Neutral: neither;
- `mnli`: GLUE's MNLI by TensorFlow Datasets, which downloads it on first use.

In `pairs` every hypothesis has as many premises of each class, and the neutral premises
are those of the other classes, dealt anew: who sees one of the two texts only learns
nothing from it, or next to nothing.

Training, validation and test data have no text in common, on neither side.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Iterable

import numpy as np
import wordnet
from wordnet import Synset

TASKS = ("glosses", "pairs", "mnli")
RELATIONS = ("entailment", "neutral", "contradiction")
"""The classes of pairs, in the order of MNLI."""

SPLITS = {"train": 0.8, "val": 0.1, "test": 0.1}
_STAY = 0.65  # the part of the meanings that is split off together with the hypernym
_MOST_GLOSSES = 2000  # of a topic; the largest has 14 435
_MOST_PREMISES = 4  # of a hypothesis and a class


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """The examples of one split.

    Attributes:
        first: the texts, or the premises.
        second: the hypotheses; None where an example is a single text.
        labels: int32 of shape `(examples,)`, indices of classes.
    """

    first: list[str]
    second: list[str] | None
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


@dataclasses.dataclass(frozen=True, eq=False)
class TextData:
    """Texts and labels, split into training, validation and test data.

    Attributes:
        name: the task.
        classes: the names of the classes.
        train, val, test: the examples.
    """

    name: str
    classes: tuple[str, ...]
    train: Examples
    val: Examples
    test: Examples


def load(
    task: str, data_dir: str | pathlib.Path | None = None, *, seed: int = 0
) -> TextData:
    """The data of a task.

    Args:
        task: one of `TASKS`.
        data_dir: the folder of WordNet's files, by default Debian's; for `mnli` that
            of TensorFlow Datasets.
        seed: decides which meanings are in which split, and which are taken.

    Returns:
        A `TextData`; the same arguments always give the same.

    Raises:
        ValueError: if there is no such task, or a file is damaged.
        OSError: if files are missing or cannot be downloaded.
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {TASKS}. Received: task={task!r}")
    if task == "mnli":
        return _mnli(data_dir)
    synsets = wordnet.read_synsets(data_dir)
    splits = split_synsets(synsets, seed)
    if task == "glosses":
        return glosses(synsets, splits, seed)
    return pairs(synsets, splits, seed)


def training_glosses(
    data_dir: str | pathlib.Path | None = None, *, seed: int = 0
) -> list[str]:
    """The glosses of the training split, each once, related ones close to each other.

    What a language model may be trained on: `load` with the same seed has none of
    them in its validation and test data.
    """
    synsets = wordnet.read_synsets(data_dir)
    splits = split_synsets(synsets, seed)
    found = [x.gloss for x in synsets.values() if splits[x.key] == "train"]
    return list(dict.fromkeys(found))


# Splits.


def split_synsets(synsets: dict[str, Synset], seed: int) -> dict[str, str]:
    """The split of each synset: `"train"`, `"val"` or `"test"`.

    Most follow their hypernym, or few pairs would have both sides in one split. Those
    of the same gloss go together.
    """
    random = np.random.default_rng(seed)
    drawn = random.choice(list(SPLITS), size=len(synsets), p=list(SPLITS.values()))
    stays = random.random(len(synsets)) < _STAY
    splits: dict[str, str] = {}
    of_gloss: dict[str, str] = {}
    for i, key in enumerate(_general_first(synsets)):
        synset = synsets[key]
        above = [splits[name] for name in synset.hypernyms if name in splits]
        split = above[0] if above and stays[i] else str(drawn[i])
        splits[key] = of_gloss.setdefault(synset.gloss, split)
    return splits


def _general_first(synsets: dict[str, Synset]) -> list[str]:
    """The keys in an order in which hypernyms come before hyponyms."""
    done: dict[str, bool] = {}

    def visit(key: str) -> None:
        if key in done or key not in synsets:
            return
        done[key] = False  # WordNet has a circle, which must end here
        for name in synsets[key].hypernyms:
            visit(name)
        order.append(key)

    order: list[str] = []
    for key in synsets:
        visit(key)
    return order


# The tasks.


def glosses(synsets: dict[str, Synset], splits: dict[str, str], seed: int) -> TextData:
    """Glosses, with their topics as classes; of large topics a part."""
    random = np.random.default_rng(seed)
    unique = list({x.gloss: x for x in reversed(synsets.values())}.values())
    taken: collections.Counter[int] = collections.Counter()
    rows: dict[str, list[tuple[str, str, int]]] = {name: [] for name in SPLITS}
    chosen = []
    for i in random.permutation(len(unique)):
        taken[unique[i].topic] += 1
        if taken[unique[i].topic] <= _MOST_GLOSSES:
            chosen.append(unique[i])
    # Anew, or what large topics have would come first.
    for i in random.permutation(len(chosen)):
        synset = chosen[i]
        rows[splits[synset.key]].append((synset.gloss, "", synset.topic))
    found = {
        name: Examples([row[0] for row in rows[name]], None, _labels(rows[name]))
        for name in SPLITS
    }
    return TextData("glosses", wordnet.TOPICS, **found)


def pairs(synsets: dict[str, Synset], splits: dict[str, str], seed: int) -> TextData:
    """Pairs of glosses, with what the first says of the second as classes."""
    found = {}
    for i, name in enumerate(SPLITS):
        inside = {k: x for k, x in synsets.items() if splits[k] == name}
        rows = _pairs(inside, np.random.default_rng([seed, i]))
        found[name] = Examples(
            [row[0] for row in rows], [row[1] for row in rows], _labels(rows)
        )
    return TextData("pairs", RELATIONS, **found)


def _labels(rows: list[tuple[str, str, int]]) -> np.ndarray:
    return np.array([row[2] for row in rows], np.int32)


def _pairs(
    synsets: dict[str, Synset], random: np.random.Generator
) -> list[tuple[str, str, int]]:
    """Premise, hypothesis and label of all pairs of one split, in random order."""
    relations = _Relations(synsets)
    chosen: list[tuple[str, str, str]] = []  # premise, hypothesis, relation
    for key in synsets:
        below = relations.hyponyms[key]
        opposed, sisters = relations.beside(key)
        count = min(len(below), len(opposed) + len(sisters), _MOST_PREMISES)
        below = [str(k) for k in random.permutation(below)]
        beside = opposed + [str(k) for k in random.permutation(sisters)]
        chosen += [(name, key, "entailment") for name in below[:count]]
        chosen += [(name, key, "contradiction") for name in beside[:count]]
    chosen += _neutral(chosen, relations, random)
    rows = [
        (synsets[a].gloss, synsets[b].gloss, RELATIONS.index(relation))
        for a, b, relation in chosen
    ]
    return [rows[i] for i in random.permutation(len(rows))]


def _neutral(
    others: list[tuple[str, str, str]],
    relations: _Relations,
    random: np.random.Generator,
) -> list[tuple[str, str, str]]:
    """For each entailed hypothesis a premise of another that has no part in it."""
    premises = [premise for premise, _, _ in others]
    left = [premises[i] for i in random.permutation(len(premises))]
    found = []
    for _, hypothesis, relation in others:
        if relation != "entailment":
            continue
        fits = (i for i, x in enumerate(left) if relations.unrelated(x, hypothesis))
        place = next(fits, None)
        if place is not None:
            found.append((left.pop(place), hypothesis, "neutral"))
    return found


class _Relations:
    """Who stands above, below and beside whom in one split."""

    def __init__(self, synsets: dict[str, Synset]) -> None:
        self.synsets = synsets
        self.hyponyms: dict[str, list[str]] = collections.defaultdict(list)
        for key, synset in synsets.items():
            for above in synset.hypernyms:
                if above in synsets and synsets[above].gloss != synset.gloss:
                    self.hyponyms[above].append(key)

    def above(self, key: str) -> set[str]:
        """All that is more general, and the key itself."""
        found, waiting = {key}, [key]
        while waiting:
            synset = self.synsets.get(waiting.pop())
            for name in synset.hypernyms if synset else ():
                if name not in found:
                    found.add(name)
                    waiting.append(name)
        return found

    def beside(self, key: str) -> tuple[list[str], list[str]]:
        """Antonyms, and other hyponyms of the same hypernyms."""
        synset, nearby = self.synsets[key], {key, *self.hyponyms[key]}

        def fitting(names: Iterable[str]) -> list[str]:
            return [
                name
                for name in dict.fromkeys(names)
                if name in self.synsets
                and name not in nearby
                and self.synsets[name].gloss != synset.gloss
            ]

        opposed = fitting(synset.antonyms)
        nearby |= set(opposed) | set(synset.hypernyms)
        sisters = [x for name in synset.hypernyms for x in self.hyponyms[name]]
        return opposed, fitting(sisters)

    def unrelated(self, first: str, second: str) -> bool:
        """Whether both have the same part of speech, and nothing else in common."""
        one, other = self.synsets[first], self.synsets[second]
        return (
            first[0] == second[0]
            and one.gloss != other.gloss
            and not set(one.hypernyms) & set(other.hypernyms)
            and second not in self.above(first)
            and first not in self.above(second)
            and second not in one.antonyms
            and first not in other.antonyms
        )


def _mnli(data_dir: str | pathlib.Path | None) -> TextData:
    """GLUE's MNLI. Its authors keep the test labels; their validation data tests."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "Task 'mnli' comes from TensorFlow Datasets: "
            "`pip install tensorflow-datasets importlib_resources`."
        ) from error
    builder = tfds.builder("glue/mnli", data_dir=data_dir)
    try:
        builder.download_and_prepare()
    except Exception as error:  # Any of a dozen types, by downloader and by server.
        raise OSError(
            f"Data set 'glue/mnli' could not be downloaded to {builder.data_dir}; "
            "the tasks 'glosses' and 'pairs' need no network. "
            f"Received: {type(error).__name__}: {error}"
        ) from error

    def read(split: str) -> Examples:
        rows = list(tfds.as_numpy(builder.as_dataset(split=split)))
        return Examples(
            [row["premise"].decode() for row in rows],
            [row["hypothesis"].decode() for row in rows],
            np.array([row["label"] for row in rows], np.int32),
        )

    return TextData(
        "mnli",
        RELATIONS,
        train=read("train[:95%]"),
        val=read("train[95%:]"),
        test=read("validation_matched"),
    )
