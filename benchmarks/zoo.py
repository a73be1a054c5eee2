"""Prunes every network of keras.applications, and checks what comes out.

    python benchmarks/zoo.py                          # all; minutes each
    python benchmarks/zoo.py --only='MobileNet.*'
    python benchmarks/zoo.py --hub                    # keras_hub's backbones as well

Each network, at the smallest input it takes and with random weights whose output
depends on the input, is pruned for a few training steps, stripped, compared with the
pruned model, saved, loaded, exported and run in LiteRT. Each runs in a process of its
own and is a line of `--output`, also when it fails: then with the reason.
"""

from __future__ import annotations

import inspect
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import common  # before the others: it quiets TensorFlow
import keras
import numpy as np
from absl import app, flags

import pdp_keras
from pdp_keras.models.macs import count_macs

_ONLY = flags.DEFINE_string("only", ".*", "Regular expression of whole names.")
_HUB = flags.DEFINE_bool("hub", False, "Backbones of keras_hub, too.")
_MODE = flags.DEFINE_string("mode", "channel", "channel, unstructured, or N:M.")
_SPARSITY = flags.DEFINE_float("sparsity", 0.5, "Fraction, but for N:M.")
_RETRY = flags.DEFINE_bool("retry", False, "Run those again that failed.")
_TIMEOUT = flags.DEFINE_integer("timeout", 3600, "Seconds for one network.")
_RUNS = flags.DEFINE_integer("runs", 15, "Runs of each file for its latency.")
_OUTPUT = flags.DEFINE_string(
    "output", "pdp_output/zoo.jsonl", "Results file, added to."
)
_FLOATX = flags.DEFINE_string("floatx", "float32", "Used by the script itself.")
_CHILD = flags.DEFINE_string("child", None, "Used by the script itself: one name.")

_CLASSES = 10
_SIZES = (32, 71, 75, 96, 128, 160, 192, 224, 299, 331)
_MOST_DIFFERENCE = 1e-4
# Deep networks with BatchNormalization and random weights multiply a rounding error by
# up to 1e9; what a wrong removal changes would not be smaller in float64 at all.
_MOST_PRECISE_DIFFERENCE = 1e-6
# Below, the output hardly depends on the input, and a comparison proves nothing.
_LEAST_SIGNAL = 1e-2


def find_applications() -> dict[str, Callable[[], keras.Model]]:
    """Every network of keras.applications by name, with a way to build it."""
    found = {}
    for name, builder in vars(keras.applications).items():
        if inspect.isfunction(builder) and "weights" in (
            inspect.signature(builder).parameters
        ):
            found[name] = lambda builder=builder: build_smallest(builder)
    return found


def build_smallest(builder: Callable[..., keras.Model]) -> keras.Model:
    """The network at the smallest input that it takes, without weights or softmax."""
    for size in _SIZES:
        try:
            return builder(
                weights=None,
                input_shape=(size, size, 3),
                classes=_CLASSES,
                classifier_activation=None,
            )
        except ValueError:  # too small, it says
            if size == _SIZES[-1]:
                raise
    raise AssertionError


def find_backbones() -> dict[str, Callable[[], keras.Model]]:
    """Small backbones of keras_hub with a Dense head, by name."""
    from keras_hub import models

    def pooled(backbone: keras.Model, shape: tuple[int, ...]) -> keras.Model:
        inputs = keras.Input(shape)
        x = backbone(inputs)
        pooling = {
            4: keras.layers.GlobalAveragePooling2D,
            3: keras.layers.GlobalAveragePooling1D,
        }[len(x.shape)]
        return keras.Model(inputs, keras.layers.Dense(_CLASSES)(pooling()(x)))

    def resnet() -> keras.Model:
        backbone = models.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[3],
            stackwise_num_filters=[64, 64, 128],
            stackwise_num_blocks=[2, 2, 2],
            stackwise_num_strides=[1, 2, 2],
            block_type="bottleneck_block",
            image_shape=(32, 32, 3),
        )
        return pooled(backbone, (32, 32, 3))

    def mobilenet() -> keras.Model:
        backbone = models.MobileNetBackbone(
            stackwise_expansion=[[40, 56], [64, 144]],
            stackwise_num_blocks=[2, 2],
            stackwise_num_filters=[[16, 16], [24, 24]],
            stackwise_kernel_size=[[3, 3], [5, 5]],
            stackwise_num_strides=[[2, 1], [2, 1]],
            stackwise_se_ratio=[[None, None], [0.25, 0.25]],
            stackwise_activation=[["relu"] * 2, ["hard_swish"] * 2],
            stackwise_padding=[[1, 1], [2, 2]],
            output_num_filters=96,
            depthwise_filters=8,
            depthwise_stride=2,
            depthwise_residual=False,
            last_layer_filter=96,
            squeeze_and_excite=0.5,
            image_shape=(32, 32, 3),
        )
        return pooled(backbone, (32, 32, 3))

    def vit() -> keras.Model:
        backbone = models.ViTBackbone(
            image_shape=(32, 32, 3),
            patch_size=8,
            num_layers=2,
            num_heads=4,
            hidden_dim=64,
            mlp_dim=128,
        )
        return pooled(backbone, (32, 32, 3))

    def bert() -> keras.Model:
        backbone = models.BertBackbone(
            vocabulary_size=100,
            num_layers=2,
            num_heads=4,
            hidden_dim=64,
            intermediate_dim=128,
            max_sequence_length=16,
        )
        names = ("token_ids", "segment_ids", "padding_mask")
        inputs = {n: keras.Input((16,), dtype="int32", name=n) for n in names}
        x = backbone(inputs)["pooled_output"]
        return keras.Model(inputs, keras.layers.Dense(_CLASSES)(x))

    makers = {"ResNet": resnet, "MobileNet": mobilenet, "ViT": vit, "BERT": bert}
    return {f"keras_hub.{name}": make for name, make in makers.items()}


def find_networks() -> dict[str, Callable[[], keras.Model]]:
    """All networks that the flags ask for."""
    networks = find_applications()
    if _HUB.value or (_CHILD.value or "").startswith("keras_hub."):
        networks |= find_backbones()
    return {n: make for n, make in networks.items() if re.fullmatch(_ONLY.value, n)}


def prune(model: keras.Model) -> keras.Model:
    """The pruned model in the mode of the flags."""
    if ":" in _MODE.value:
        return pdp_keras.prune_model(model, mode=_MODE.value)
    mode = _MODE.value
    if mode == "channel":
        mode = pdp_keras.Channel(round_to=8)
    return pdp_keras.prune_model(
        model, sparsity=_SPARSITY.value, mode=mode, allocation="uniform"
    )


def train_briefly(model: keras.Model) -> None:
    """A few steps in which the sparsity rises to its target."""
    x = common.random_inputs(model, 16, seed=1)
    y = np.arange(16) % _CLASSES
    model.compile(
        keras.optimizers.SGD(1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # Tracing a large graph would take far longer than these few steps.
        run_eagerly=True,
    )
    schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=0, ramp_epochs=2)
    model.fit(x, y, batch_size=16, epochs=2, callbacks=[schedule], verbose=0)
    # Two steps do not move the statistics to where the pruned weights want them.
    common.fit_normalizations(model, x)


def require(condition: bool, rule: str, **received: float) -> None:
    """Raises an AssertionError that says what was received."""
    if not condition:
        values = ", ".join(f"{name}={value:.3g}" for name, value in received.items())
        raise AssertionError(f"{rule}. Received: {values}")


def check(make: Callable[[], keras.Model], row: dict[str, Any]) -> None:
    """Takes one network all the way; fills in the row as it goes."""
    row["stage"] = "build"
    dense = common.randomize(make())
    common.fit_normalizations(dense, common.random_inputs(dense, 16, seed=2))
    shapes = keras.tree.map_structure(lambda x: list(x.shape[1:]), dense.input)
    row["input"] = shapes
    row["parameters"], row["macs"] = dense.count_params(), count_macs(dense)

    row["stage"] = "prune"
    pruned = prune(dense)
    row["stage"] = "train"
    train_briefly(pruned)
    row["stage"] = "strip"
    small = pdp_keras.strip_pruning(pruned)
    row["small_parameters"] = small.count_params()
    row["small_macs"] = count_macs(small)

    row["stage"] = "compare"
    first, second = (common.random_inputs(dense, 4, seed) for seed in (3, 4))
    expected = pruned(first, training=False)
    row["signal"] = common.relative_difference(pruned(second, training=False), expected)
    require(row["signal"] >= _LEAST_SIGNAL, "two inputs differ", signal=row["signal"])
    got = small(first, training=False)
    row["difference"] = common.relative_difference(got, expected)
    if keras.config.floatx() == "float64":
        return  # It was run for this figure; LiteRT has no float64.
    if row["difference"] > _MOST_DIFFERENCE:
        # Some networks of random weights are so sensitive that rounding alone changes
        # their output this much. Then it has to vanish with the rounding.
        row["precise_difference"] = precise_difference(row["name"])
        require(
            row["precise_difference"] <= _MOST_PRECISE_DIFFERENCE,
            f"stripped and pruned agree to {_MOST_DIFFERENCE:g}, or in float64 to "
            f"{_MOST_PRECISE_DIFFERENCE:g}",
            float32=row["difference"],
            float64=row["precise_difference"],
        )
    del pruned
    with tempfile.TemporaryDirectory() as folder:
        save_and_export(dense, small, first, got, pathlib.Path(folder), row)
    row["stage"] = "done"


def precise_difference(name: str) -> float:
    """How far stripped and pruned are apart when everything is in float64."""
    row = run_in_process(name, "--floatx=float64")
    if "error" in row:
        raise RuntimeError(f"in float64: {row['error']}")
    return row["difference"]


def save_and_export(
    dense: keras.Model,
    small: keras.Model,
    inputs: Any,
    outputs: Any,
    folder: pathlib.Path,
    row: dict[str, Any],
) -> None:
    """Saves, loads, exports and times the stripped model."""
    row["stage"] = "save and load"
    small.save(folder / "small.keras")
    loaded = keras.saving.load_model(folder / "small.keras", compile=False)
    loaded_difference = common.relative_difference(
        loaded(inputs, training=False), outputs
    )
    require(loaded_difference == 0, "loaded computes the same", got=loaded_difference)
    row["stage"] = "export"
    paths = [folder / "dense.tflite", folder / "small.tflite"]
    # The file is compared on inputs in the range that the network was made for.
    # So many layers of random weights round to more than the default allows.
    tolerance = max(1e-3, 10 * row["difference"])
    report = pdp_keras.export_tflite(
        small, paths[1], representative_dataset=inputs, tolerance=tolerance
    )
    row["export_difference"] = report.relative_difference
    pdp_keras.export_tflite(dense, paths[0], verify=False)
    row["stage"] = "latency"
    each = [float(np.median(s)) for s in common.latencies(paths, _RUNS.value)]
    row["milliseconds"], row["small_milliseconds"] = (1000 * s for s in each)


def run_child(name: str) -> None:
    """Checks one network; prints its row as JSON in the last line."""
    keras.config.set_floatx(_FLOATX.value)
    keras.utils.set_random_seed(0)
    row: dict[str, Any] = {"name": name, "mode": _MODE.value}
    start = time.perf_counter()
    try:
        check(find_networks()[name], row)
    except Exception as error:  # whatever it is, it is the row's reason
        row["error"] = f"{type(error).__name__}: {error}"
    row["seconds"] = time.perf_counter() - start
    print(json.dumps(row))


def run_in_process(name: str, *more: str) -> dict[str, Any]:
    """One network in a process of its own, whose memory ends with it."""
    arguments = [f"--child={name}", f"--mode={_MODE.value}", f"--runs={_RUNS.value}"]
    arguments += more
    command = [sys.executable, __file__, *arguments, f"--sparsity={_SPARSITY.value}"]
    row: dict[str, Any] = {"name": name, "mode": _MODE.value}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT.value, check=False
        )
    except subprocess.TimeoutExpired:
        return row | {"error": f"took longer than {_TIMEOUT.value} s"}
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    last = (done.stderr.splitlines() or [""])[-1]
    return row | {"error": f"exit status {done.returncode}: {last}"}


def print_row(row: dict[str, Any]) -> None:
    """One line of the table."""

    def ratio(key: str) -> str:
        if f"small_{key}" not in row or key not in row:
            return "-"
        return f"{row[f'small_{key}'] / row[key]:.1%}"

    def exponent(key: str) -> str:
        return f"{row[key]:.0e}" if key in row else "-"

    print(
        f"{row['name']:<24}{row.get('macs', 0) / 1e6:>9.1f}{ratio('macs'):>8}"
        f"{row.get('parameters', 0) / 1e6:>8.2f}{ratio('parameters'):>8}"
        f"{exponent('difference'):>8}{exponent('export_difference'):>8}"
        f"{row.get('milliseconds', 0):>9.2f}{ratio('milliseconds'):>8}"
        f"{row.get('seconds', 0):>7.0f}",
        flush=True,
    )
    if "precise_difference" in row:
        print(f"    in float64 strip {row['precise_difference']:.0e}", flush=True)
    if "error" in row:
        reason = " ".join(row["error"].split())
        print(f"    {row.get('stage', 'start')}: {reason[:300]}", flush=True)


def main(argv: list[str]) -> None:
    """All networks that are not in the results yet."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are understood. Received: {argv[1:]}")
    if _CHILD.value:
        run_child(_CHILD.value)
        return
    path = pathlib.Path(_OUTPUT.value).expanduser()
    rows = {(row["name"], row["mode"]): row for row in common.read_rows(path)}
    print(common.describe_machine())
    print(
        f"{'':<24}{'M MACs':>9}{'left':>8}{'M par.':>8}{'left':>8}"
        f"{'strip':>8}{'LiteRT':>8}{'ms':>9}{'left':>8}{'s':>7}"
    )
    for name in find_networks():
        row = rows.get((name, _MODE.value))
        if row is None or (_RETRY.value and "error" in row):
            row = run_in_process(name)
            common.append_row(path, row)
        print_row(row)


if __name__ == "__main__":
    app.run(main)
