"""How wide the soft band should be for channels, N:M, blocks: candidates on one budget.

    python benchmarks/structured_temperature.py --mode=channel
    python benchmarks/structured_temperature.py --mode=1:4 --candidates=1:0.01,1:0.001
    python benchmarks/structured_temperature.py --mode=block --sparsity=0.95

The network, budget and schedule of `fashion_structured.py`; validation accuracy of the
stripped model in percent (no test image is touched). A candidate is `factor:final`,
the relative temperature and what of it is left in the end.
"""

from __future__ import annotations

import common  # before the others: it finds the examples and quiets TensorFlow
import data
import fashion_structured
import keras
from absl import app, flags
from fashion_structured import Budget, Method

import pdp_keras

_MODE = flags.DEFINE_enum(
    "mode",
    "channel",
    ["channel", "1:4", "2:4", "block", "block:4", "unstructured"],
    "What to prune.",
)
_SPARSITY = flags.DEFINE_float(
    "sparsity", 0.9, "Of blocks and single weights; others have their own."
)
_CANDIDATES = flags.DEFINE_list(
    "candidates", "0.1:0.01,0.1:0.001,0.01:0.001,0.001:0.01", "factor:final, ..."
)


def main(argv: list[str]) -> None:
    """Prints a line for each candidate."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are understood. Received: {argv[1:]}")
    candidates = [map(float, text.split(":")) for text in _CANDIDATES.value]
    images = data.load("fashion_mnist", None, validation_fraction=0.2)
    channels = _MODE.value == "channel"
    sparsity = _SPARSITY.value
    if channels:
        sparsity = fashion_structured.channel_sparsity()
    print(common.describe_machine())

    def report(title: str, method: Method) -> None:
        values = []
        for seed in range(flags.FLAGS.seeds):
            row = fashion_structured.train(method, seed, Budget(), images, sparsity)
            values.append(row["validation"])
            keras.backend.clear_session()
        each = "  ".join(f"{value:.2f}" for value in values)
        print(f"{title:<30}{common.mean_and_std(values):>15}   ({each})", flush=True)

    report("dense", Method())
    report("magnitude", Method(_MODE.value, magnitude=True))
    for factor, final in candidates:
        temperature = pdp_keras.RelativeTemperature(factor)
        method = Method(_MODE.value, temperature=temperature, final_temperature=final)
        report(f"factor {factor:g}, final {final:g}", method)


if __name__ == "__main__":
    app.run(main)
