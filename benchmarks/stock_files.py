"""Files of stock networks, dense, sparse and rewritten, for the runs in real runtimes.

Random weights by which the output depends on the input: time and instructions do not
depend on their values, and a comparison proves something.
"""

from __future__ import annotations

import json
import pathlib
import warnings
from typing import Any

import common  # before the others: it quiets TensorFlow
import keras
import numpy as np
from keras import applications

import pdp_keras
from pdp_keras.models.inputs import model_inputs
from pdp_keras.models.kernels import find_kernels
from pdp_keras.modes import Mode, Unstructured

SPARSITIES = (0.7, 0.8, 0.85, 0.9, 0.95)
"""Of the 1x1 convolutions."""

BLOCKS = {
    "scattered": Unstructured(),
    "pairs": pdp_keras.Block(2),
    "fours": pdp_keras.Block(4),
}
"""What is pruned together in the files of `block_files`."""

# Functions of keras.applications; each at the size that it was made for.
NETWORKS = {
    "MobileNet": 224,
    "MobileNetV2": 224,
    "MobileNetV3Small": 224,
    "MobileNetV3Large": 224,
    "EfficientNetB0": 224,
    "EfficientNetB1": 240,
    "EfficientNetB2": 260,
    "EfficientNetB3": 300,
    "EfficientNetV2B0": 224,
    "NASNetMobile": 224,
    "ResNet50": 224,
    "DenseNet121": 224,
    "Xception": 299,
}


def build(name: str) -> keras.Model:
    """The network without softmax, with weights by which its output varies."""
    size = NETWORKS[name]
    model = getattr(applications, name)(
        weights=None, input_shape=(size, size, 3), classifier_activation=None
    )
    common.randomize(model)
    common.fit_normalizations(model, common.random_inputs(model, 8, seed=2))
    return model


def zero_pointwise(
    model: keras.Model, sparsity: float, mode: Mode = BLOCKS["scattered"]
) -> None:
    """Zeroes the smallest units of each 1x1 convolution; refits the statistics."""
    for kernel in find_kernels(model)[0]:
        layer = kernel.owner
        if type(layer) is keras.layers.Conv2D and layer.kernel_size == (1, 1):
            zeros = mode.count_zeros(sparsity, kernel.shape, kernel.axes)
            left = mode.hard_masked(kernel.variable.value, zeros, kernel.axes)
            kernel.variable.assign(left)
    common.fit_normalizations(model, common.random_inputs(model, 8, seed=2))


def stock_files(name: str, folder: pathlib.Path) -> dict[str, Any]:
    """Writes a network's files and what Keras computes, once; tells what it wrote.

    `0.tflite` is dense; then come, for each of `SPARSITIES`, the file as TensorFlow
    converts it and the one rewritten for "xnnpack". `expected.npz` has two images and
    for each file the outputs. A network that cannot run sparse has a "reason" instead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = folder / "about.json"
    if about.exists():
        return json.loads(about.read_text())
    model = build(name)
    check = pdp_keras.deploy_check(model, "xnnpack")
    row: dict[str, Any] = {"name": name, "size": NETWORKS[name]}
    if check.prunable:
        images = common.random_inputs(model, 2, seed=3)
        (input_name,) = (one.name for one in model_inputs(model).flat)
        row |= {"input": input_name, "sparsities": SPARSITIES, "turned": check.turned}
        write_tflite(model, "generic", folder / "0.tflite")
        expected = [outputs_of(model, images)]
        for sparsity in SPARSITIES:
            zero_pointwise(model, sparsity)
            for target in ("generic", "xnnpack"):
                write_tflite(model, target, folder / f"{len(expected)}.tflite")
                expected.append(outputs_of(model, images))
        np.savez(folder / "expected.npz", images=images, outputs=np.stack(expected))
    else:
        row["reason"] = check.summary
    about.write_text(json.dumps(row))
    return row


def block_files(name: str, sparsity: float, folder: pathlib.Path) -> dict[str, Any]:
    """Writes a network with zeros of each kind of `BLOCKS`, once; tells what it wrote.

    `0.tflite` is dense, the others, rewritten for "xnnpack", come in the order of
    `BLOCKS`. `expected.npz` is as that of `stock_files`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = folder / "about.json"
    if about.exists():
        return json.loads(about.read_text())
    model = build(name)
    weights = model.get_weights()
    images = common.random_inputs(model, 2, seed=3)
    (input_name,) = (one.name for one in model_inputs(model).flat)
    row = {"name": name, "input": input_name, "sparsity": sparsity}
    write_tflite(model, "generic", folder / "0.tflite")
    expected = [outputs_of(model, images)]
    for i, mode in enumerate(BLOCKS.values(), 1):
        model.set_weights(weights)
        zero_pointwise(model, sparsity, mode)
        write_tflite(model, "xnnpack", folder / f"{i}.tflite")
        expected.append(outputs_of(model, images))
    np.savez(folder / "expected.npz", images=images, outputs=np.stack(expected))
    about.write_text(json.dumps(row))
    return row


def write_tflite(model: keras.Model, target: str, path: pathlib.Path) -> None:
    """Writes one file; compared with Keras where it runs, not here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # below 2/3 it says that nothing is faster
        pdp_keras.export_tflite(model, path, target=target, verify=False)


def outputs_of(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What Keras computes."""
    return np.asarray(model(images, training=False))
