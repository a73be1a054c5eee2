"""How much faster unstructured sparsity makes stock networks in a real browser.

    python benchmarks/browser_speed.py                       # all; minutes each
    python benchmarks/browser_speed.py --only='MobileNet.*'

Each network of keras.applications, with random weights whose output depends on the
input, gets the smallest weights of its 1x1 convolutions set to zero and is exported
twice: as TensorFlow converts it, and rewritten for "xnnpack". Both files and the dense
one run in LiteRT.js in headless Chromium, one thread, turn by turn, and are compared
with Keras. Networks that cannot run sparse are listed with the rule that stops them.
Needs Node.js with npm, and Chromium.
"""

from __future__ import annotations

import pathlib
import re
import tempfile
import warnings
from typing import Any

import browser
import common  # before the others: it quiets TensorFlow
import keras
import numpy as np
from absl import app, flags
from keras import applications

import pdp_keras

_ONLY = flags.DEFINE_string("only", ".*", "Regular expression of whole names.")
_SPARSITIES = flags.DEFINE_list("sparsities", "0.7,0.8,0.85,0.9,0.95", "Of 1x1.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Turns of each file.")
_RUNS = flags.DEFINE_integer("runs", 10, "Inferences a turn.")
_OUTPUT = flags.DEFINE_string(
    "output", "pdp_output/browser_speed.jsonl", "Results file, added to."
)

# Each at the size that it was made for.
NETWORKS = {
    "MobileNet": (applications.MobileNet, 224),
    "MobileNetV2": (applications.MobileNetV2, 224),
    "MobileNetV3Small": (applications.MobileNetV3Small, 224),
    "MobileNetV3Large": (applications.MobileNetV3Large, 224),
    "EfficientNetB0": (applications.EfficientNetB0, 224),
    "EfficientNetB1": (applications.EfficientNetB1, 240),
    "EfficientNetB2": (applications.EfficientNetB2, 260),
    "EfficientNetB3": (applications.EfficientNetB3, 300),
    "EfficientNetV2B0": (applications.EfficientNetV2B0, 224),
    "NASNetMobile": (applications.NASNetMobile, 224),
    "ResNet50": (applications.ResNet50, 224),
    "DenseNet121": (applications.DenseNet121, 224),
    "Xception": (applications.Xception, 299),
}


def build(name: str) -> keras.Model:
    """The network without softmax, with weights by which its output varies."""
    make, size = NETWORKS[name]
    model = make(weights=None, input_shape=(size, size, 3), classifier_activation=None)
    common.randomize(model)
    common.fit_normalizations(model, common.random_inputs(model, 8, seed=2))
    return model


def zero_pointwise(model: keras.Model, sparsity: float) -> None:
    """Zeroes the smallest weights of each 1x1 convolution; refits the statistics."""
    for layer in model._flatten_layers():
        if type(layer) is keras.layers.Conv2D and layer.kernel_size == (1, 1):
            kernel = layer.kernel.numpy()
            order = np.abs(kernel).ravel().argsort()
            kernel.ravel()[order[: round(sparsity * kernel.size)]] = 0
            layer.kernel.assign(kernel)
    common.fit_normalizations(model, common.random_inputs(model, 8, seed=2))


def exported(model: keras.Model, target: str) -> bytes:
    """The content of the file; compared with Keras in the browser, not here."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # below 2/3 it says that nothing is faster
        path = pathlib.Path(folder) / "model.tflite"
        pdp_keras.export_tflite(model, path, target=target, verify=False)
        return path.read_bytes()


def outputs_of(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What Keras computes."""
    return np.asarray(model(images, training=False))


def measure(name: str) -> dict[str, Any]:
    """Everything about one network."""
    model = build(name)
    check = pdp_keras.deploy_check(model, "xnnpack")
    row: dict[str, Any] = {"name": name, "size": NETWORKS[name][1]}
    if not check.prunable:
        return row | {"reason": check.summary}
    images = common.random_inputs(model, 2, seed=3)
    files, expected = [exported(model, "generic")], [outputs_of(model, images)]
    sparsities = [float(text) for text in _SPARSITIES.value]
    for sparsity in sparsities:
        zero_pointwise(model, sparsity)
        for target in ("generic", "xnnpack"):
            files.append(exported(model, target))
            expected.append(outputs_of(model, images))
    input_name = model.input_names[0]
    batches = [{input_name: images[i : i + 1]} for i in range(len(images))]
    results = browser.run_files(files, batches, rounds=_ROUNDS.value, runs=_RUNS.value)
    differences = []
    for result, wanted in zip(results, expected, strict=True):
        got = [next(iter(o.values())).reshape(wanted.shape[1:]) for o in result.outputs]
        differences.append(common.relative_difference(np.stack(got), wanted))
    signal = common.relative_difference(expected[0][::-1], expected[0])
    times = [result.milliseconds for result in results]
    return row | {
        "sparsities": sparsities,
        "signal": signal,
        "difference": max(differences),
        "dense_ms": times[0],
        "converted_ms": times[1::2],
        "rewritten_ms": times[2::2],
        "turned": check.turned,
        "bytes": [len(data) for data in files],
        "chromium": results[0].version,
    }


def print_row(row: dict[str, Any]) -> None:
    """A few lines of the table."""
    if "reason" in row:
        print(f"{row['name']:<18} runs dense: {row['reason']}", flush=True)
        return
    cells = "".join(
        f"{new:>8.1f} ({row['dense_ms'] / new:.1f}x)" for new in row["rewritten_ms"]
    )
    print(f"{row['name']:<18}{row['dense_ms']:>8.1f}  rewritten{cells}")
    cells = "".join(
        f"{new:>8.1f} ({row['dense_ms'] / new:.1f}x)" for new in row["converted_ms"]
    )
    print(f"{'':<26}  converted{cells}")
    print(
        f"{'':<26}  outputs equal to {row['difference']:.0e} of their scale (two "
        f"images differ by {row['signal']:.1g})",
        flush=True,
    )


def main(argv: list[str]) -> None:
    """All networks that are not in the results yet."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are understood. Received: {argv[1:]}")
    try:
        browser.install()
    except browser.BrowserError as error:
        raise app.UsageError(str(error)) from error
    path = pathlib.Path(_OUTPUT.value).expanduser()
    rows = {row["name"]: row for row in common.read_rows(path)}
    print(common.describe_machine())
    print(f"{'ms, one thread':<18}{'dense':>8}  at sparsities {_SPARSITIES.value}")
    for name in NETWORKS:
        if not re.fullmatch(_ONLY.value, name):
            continue
        if name not in rows:
            rows[name] = measure(name)
            common.append_row(path, rows[name])
        print_row(rows[name])


if __name__ == "__main__":
    app.run(main)
