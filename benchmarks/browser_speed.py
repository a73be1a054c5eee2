"""How much faster unstructured sparsity makes stock networks in a real browser.

    python benchmarks/browser_speed.py                       # all; minutes each
    python benchmarks/browser_speed.py --only='MobileNet.*'

Each network of keras.applications, with random weights whose output depends on the
input, gets the smallest weights of its 1x1 convolutions set to zero and is exported
twice: as TensorFlow converts it, and rewritten for "xnnpack". Both files and the dense
one run in LiteRT.js in headless Chromium, one thread, turn by turn, and are compared
with Keras. Networks that cannot run sparse are listed with the rule that stops them.
The files are made once; `--sweeps` times them several times, some minutes apart.
Needs Node.js with npm, and Chromium.
"""

from __future__ import annotations

import json
import pathlib
import re
import warnings
from typing import Any

import common  # before the others: it finds the examples and quiets TensorFlow
import keras
import litert_js
import numpy as np
from absl import app, flags
from keras import applications

import pdp_keras
from pdp_keras.tflite_inputs import model_inputs

_ONLY = flags.DEFINE_string("only", ".*", "Regular expression of whole names.")
_SPARSITIES = flags.DEFINE_list("sparsities", "0.7,0.8,0.85,0.9,0.95", "Of 1x1.")
_SWEEPS = flags.DEFINE_integer(
    "sweeps", 1, "How often to measure it all, as a shared machine changes.", 1
)
_FILES = flags.DEFINE_string(
    "files", "pdp_output/browser_speed", "Folder for the files, made once."
)
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


def write_files(name: str, folder: pathlib.Path) -> dict[str, Any]:
    """Writes a network's files and what Keras computes, once; tells what it wrote."""
    about = folder / "about.json"
    if about.exists():
        return json.loads(about.read_text())
    model = build(name)
    check = pdp_keras.deploy_check(model, "xnnpack")
    row: dict[str, Any] = {"name": name, "size": NETWORKS[name][1]}
    if check.prunable:
        images = common.random_inputs(model, 2, seed=3)
        (input_name,) = (one.name for one in model_inputs(model).flat)
        sparsities = [float(text) for text in _SPARSITIES.value]
        row |= {"input": input_name, "sparsities": sparsities, "turned": check.turned}
        write_tflite(model, "generic", folder / "0.tflite")
        expected = [outputs_of(model, images)]
        for sparsity in sparsities:
            zero_pointwise(model, sparsity)
            for target in ("generic", "xnnpack"):
                write_tflite(model, target, folder / f"{len(expected)}.tflite")
                expected.append(outputs_of(model, images))
        np.savez(folder / "expected.npz", images=images, outputs=np.stack(expected))
    else:
        row["reason"] = check.summary
    about.write_text(json.dumps(row))
    return row


def write_tflite(model: keras.Model, target: str, path: pathlib.Path) -> None:
    """Writes one file; compared with Keras in the browser, not here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # below 2/3 it says that nothing is faster
        pdp_keras.export_tflite(model, path, target=target, verify=False)


def outputs_of(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What Keras computes."""
    return np.asarray(model(images, training=False))


def measure(name: str) -> dict[str, Any]:
    """Everything about one network."""
    folder = pathlib.Path(_FILES.value).expanduser() / name
    folder.mkdir(parents=True, exist_ok=True)
    row = write_files(name, folder)
    if "reason" in row:
        return row
    with np.load(folder / "expected.npz") as saved:
        images, expected = saved["images"], saved["outputs"]
    files = [(folder / f"{i}.tflite").read_bytes() for i in range(len(expected))]
    batches = [{row["input"]: images[i : i + 1]} for i in range(len(images))]
    results = litert_js.run_files(
        files, batches, rounds=_ROUNDS.value, runs=_RUNS.value
    )
    differences = []
    for result, wanted in zip(results, expected, strict=True):
        got = [next(iter(o.values())).reshape(wanted.shape[1:]) for o in result.outputs]
        differences.append(common.relative_difference(np.stack(got), wanted))
    times = [result.milliseconds for result in results]
    return row | {
        "signal": common.relative_difference(expected[0][::-1], expected[0]),
        "difference": max(differences),
        "dense_ms": times[0],
        "converted_ms": times[1::2],
        "rewritten_ms": times[2::2],
        "bytes": [len(data) for data in files],
        "chromium": results[0].version,
    }


def median_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One row for all sweeps: the median time, and the median of the ratios."""
    if "reason" in rows[0]:
        return rows[0]
    dense = np.array([row["dense_ms"] for row in rows])
    table: dict[str, Any] = {**rows[0], "dense_ms": float(np.median(dense))}
    for kind in ("converted", "rewritten"):
        times = np.array([row[f"{kind}_ms"] for row in rows])
        table[f"{kind}_ms"] = np.median(times, axis=0).tolist()
        table[f"{kind}_faster"] = np.median(dense[:, None] / times, axis=0).tolist()
    return table | {"difference": max(row["difference"] for row in rows)}


def print_row(row: dict[str, Any]) -> None:
    """A few lines of the table."""
    if "reason" in row:
        print(f"{row['name']:<18} runs dense: {row['reason']}", flush=True)
        return
    for kind in ("rewritten", "converted"):
        cells = "".join(
            f"{ms:>8.1f} ({faster:.1f}x)"
            for ms, faster in zip(row[f"{kind}_ms"], row[f"{kind}_faster"], strict=True)
        )
        print(f"{row['name']:<18}{row['dense_ms']:>8.1f}  {kind}{cells}")
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
        litert_js.install()
    except litert_js.BrowserError as error:
        raise app.UsageError(str(error)) from error
    path = pathlib.Path(_OUTPUT.value).expanduser()
    rows = common.read_rows(path)
    print(common.describe_machine())
    print(f"{'ms, one thread':<18}{'dense':>8}  at sparsities {_SPARSITIES.value}")
    names = [name for name in NETWORKS if re.fullmatch(_ONLY.value, name)]
    for sweep in range(_SWEEPS.value):
        for name in names:
            if any(row["name"] == name and row["sweep"] == sweep for row in rows):
                continue
            rows.append(measure(name) | {"sweep": sweep})
            common.append_row(path, rows[-1])
            print_row(median_of(rows[-1:]))
    print(f"\nMedians of {_SWEEPS.value} sweeps")
    for name in names:
        own = [row for row in rows if row["name"] == name]
        print_row(median_of(own[: _SWEEPS.value]))


if __name__ == "__main__":
    app.run(main)
