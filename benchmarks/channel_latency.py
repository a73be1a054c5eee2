"""How much of the saved multiplications becomes saved time, in LiteRT on this CPU.

    python benchmarks/channel_latency.py

ResNet50 and MobileNetV2 at 224 pixels, dense and with half of their channels
removed, untrained: which weights they are does not change the time. One thread; the
two files run turn by turn. `kept` is how far the latency fell, divided by how far the
multiplications fell; 1 would mean that no gain is lost.
"""

from __future__ import annotations

import pathlib
import tempfile

import common  # before the others: it quiets TensorFlow
import keras
import numpy as np
from absl import app, flags

import pdp_keras
from pdp_keras.models.macs import count_macs

_NETWORKS = flags.DEFINE_list(
    "networks", ["ResNet50", "MobileNetV2"], "Names in keras.applications."
)
_SIZE = flags.DEFINE_integer("size", 224, "Height and width of the images.")
_SPARSITY = flags.DEFINE_float("sparsity", 0.5, "Fraction of the channels.")
_ROUND_TO = flags.DEFINE_integer("round_to", 8, "Channels are left in multiples.")
_RUNS = flags.DEFINE_integer("runs", 25, "Runs of each file.", lower_bound=15)
_GOAL = flags.DEFINE_float("goal", 0.8, "The least part of the gain to keep.")


def build(name: str) -> keras.Model:
    """A network with random weights, whose output depends on its input."""
    network = getattr(keras.applications, name)
    shape = (_SIZE.value, _SIZE.value, 3)
    model = network(weights=None, input_shape=shape, classifier_activation=None)
    common.randomize(model)
    common.fit_normalizations(model, common.random_inputs(model, 4))
    return model


def remove_channels(model: keras.Model) -> keras.Model:
    """The model without the least of its channels, not trained any further."""
    pruned = pdp_keras.prune_model(
        model,
        sparsity=_SPARSITY.value,
        mode=pdp_keras.Channel(round_to=_ROUND_TO.value),
        allocation="uniform",
    )
    return pdp_keras.strip_pruning(common.prune_now(pruned))


def kept_gain(macs: float, latency: float) -> float:
    """The part of the gain that is kept, of the fractions that are left."""
    return (1 - latency) / (1 - macs)


def measure(name: str, folder: pathlib.Path) -> float:
    """Prints the figures of one network; returns the part of the gain kept."""
    dense = build(name)
    small = remove_channels(dense)
    paths = [folder / f"{name}_dense.tflite", folder / f"{name}_small.tflite"]
    pdp_keras.export_tflite(dense, paths[0])
    pdp_keras.export_tflite(small, paths[1])
    macs = [count_macs(dense), count_macs(small)]
    seconds = [np.array(each) for each in common.latencies(paths, _RUNS.value)]
    medians = [float(np.median(each)) for each in seconds]
    macs_left, time_left = macs[1] / macs[0], medians[1] / medians[0]
    # Turn by turn, so that the spread is that of the ratio and not of the machine.
    spread = np.percentile(seconds[1] / seconds[0], [25, 75])
    kept = kept_gain(macs_left, time_left)
    print(
        f"{name:<16}{macs[0] / 1e6:>8.0f} M{macs[1] / 1e6:>8.0f} M{macs_left:>8.1%}"
        f"{1000 * medians[0]:>9.2f}{1000 * medians[1]:>9.2f}{time_left:>8.1%}"
        f"{f'{spread[0]:.1%} to {spread[1]:.1%}':>18}{kept:>7.2f}"
        f"  {'reached' if kept >= _GOAL.value else 'MISSED'}",
        flush=True,
    )
    return kept


def main(argv: list[str]) -> None:
    """One line for each network."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are understood. Received: {argv[1:]}")
    print(common.describe_machine() + ", one thread")
    print(
        f"{'':<16}{'MACs dense':>10}{'small':>10}{'left':>8}"
        f"{'ms dense':>9}{'small':>9}{'left':>8}{'quartiles':>18}{'kept':>7}"
        f"  goal {_GOAL.value:g}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in _NETWORKS.value:
            measure(name, pathlib.Path(folder))


if __name__ == "__main__":
    app.run(main)
