"""How wide the soft band should be for channels: candidates on the same budget.

    python benchmarks/channel_temperature.py --seeds=2

The network of `fashion_structured.py` on 12 000 images, channels at half of the
multiplications; validation accuracy of the stripped model in percent (no test image
is touched). `factor` is the relative temperature, in units of the spread of the
squared scores; `final` what it falls to.
"""

from __future__ import annotations

import common  # before the others: it finds the examples and quiets TensorFlow
import data
import fashion_structured
import keras
import numpy as np
from absl import app, flags
from fashion_structured import Budget, Method

import pdp_keras

BUDGET = Budget(epochs=7, warmup_epochs=1, ramp_epochs=3, images=12_000)
CANDIDATES = ((1.0, 0.01), (0.1, 0.01), (0.1, 0.1), (0.01, 0.1))


def main(argv: list[str]) -> None:
    """Prints a line for each candidate."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are understood. Received: {argv[1:]}")
    images = data.load("fashion_mnist", None, validation_fraction=0.2)
    sparsity = fashion_structured.channel_sparsity()
    print(common.describe_machine())

    def report(title: str, method: Method) -> None:
        values = [
            fashion_structured.train(method, seed, BUDGET, images, sparsity)[
                "validation"
            ]
            for seed in range(flags.FLAGS.seeds)
        ]
        each = "  ".join(f"{value:.2f}" for value in values)
        print(f"{title:<28}{np.mean(values):7.2f}   ({each})", flush=True)
        keras.backend.clear_session()

    report("dense", Method())
    report("magnitude", Method("channel", magnitude=True))
    for factor, final in CANDIDATES:
        temperature = pdp_keras.RelativeTemperature(factor)
        method = Method("channel", temperature=temperature, final_temperature=final)
        report(f"factor {factor:g}, final {final:g}", method)


if __name__ == "__main__":
    app.run(main)
