"""The methods side by side where pruning is used: a pretrained BERT is fine-tuned.

    python benchmarks/text_accuracy.py                # hours; goes on where it stopped
    python benchmarks/text_accuracy.py --structures=90,95 --networks=glosses
    python benchmarks/text_accuracy.py --print_only --plot=text_accuracy.png

A BERT of two layers, 128 wide, is pretrained on WordNet's glosses once (a quarter of an
hour; `pdp_output/text_accuracy` keeps it), and then fine-tuned on their 45 topics, with
AdamW, warm-up and decay, while it is pruned. The machinery and its flags are those of
`accuracy.py`, the recipes those of `accuracy_text_recipes.py`. `glosses_distilled` is
the same with a dense teacher (the loss of the labels and that of its logits at
temperature 2, half and half), and takes the recipes that were chosen without it.
WordNet's files are Debian's package `wordnet-base`.
"""

from __future__ import annotations

import accuracy
import accuracy_text
from absl import app, flags

_DEFAULTS = {
    "networks": list(accuracy_text.TASKS),
    "structures": ["90", "95", "2:4", "80", "1:4", "channel"],
    "output": "benchmarks/results/text_accuracy.csv",
}


def main(argv: list[str]) -> None:
    """Pretrains if need be, trains, and prints the tables."""
    if not flags.FLAGS.print_only:
        accuracy_text.pretrain()
    accuracy.main(argv)


if __name__ == "__main__":
    for name, value in _DEFAULTS.items():
        flags.FLAGS.set_default(name, value)
    app.run(main)
