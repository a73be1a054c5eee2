"""Small files in WordNet's format."""

import pathlib

import numpy as np

_PARTS = ("noun", "verb", "adj", "adv")
_THINGS = ("stone", "bird", "wheel", "river", "coat", "song")


def write_wordnet(folder, kinds):
    """Writes the four files; `kinds` has for each the lines by their offsets."""
    folder = pathlib.Path(folder)
    for part in _PARTS:
        lines = ["  1 This is the license"]
        lines += [f"{n:08d} {line}" for n, line in kinds.get(part, {}).items()]
        (folder / f"data.{part}").write_text("\n".join(lines) + "\n")
    return folder


def write_tree(folder, count):
    """Writes nouns of six topics in a random tree, and some of them with one gloss."""
    random = np.random.default_rng(0)
    lines, topics = {}, {}
    for n in range(1, count + 1):
        topics[n] = above = None
        if n > len(_THINGS):
            # A fifth of the nodes have hyponyms, so that there are many sisters.
            above = 1 + int(random.integers(0, max(len(_THINGS), n // 5)))
        topics[n] = n if above is None else topics[above]
        thing = _THINGS[topics[n] - 1]
        pointers = "000" if above is None else f"001 @ {above:08d} n 0000"
        number = n % 100 if n % 6 == 0 else n
        gloss = f'a {thing} number {number}; "see {n}"'
        lines[n] = f"{4 + topics[n]:02d} n 01 {thing}{n} 0 {pointers} | {gloss}"
    return write_wordnet(folder, {"noun": lines})
