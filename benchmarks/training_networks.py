"""The networks whose training steps are timed, with a batch of random data each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Network(NamedTuple):
    """How to build a network with any Keras, and what to feed it.

    Attributes:
        build: takes a `keras` module and returns a model without its loss.
        shape: of one input.
        batch: samples a step.
        has_attention: whether some of its kernels are those of attention.
    """

    build: Callable[[Any], Any]
    shape: tuple[int, ...]
    batch: int
    has_attention: bool = False

    def data(self, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """A random batch: inputs float32 `(batch, *shape)` and labels `(batch,)`."""
        random = np.random.default_rng(seed)
        inputs = random.standard_normal((self.batch, *self.shape), "float32")
        return inputs, random.integers(0, 10, self.batch)


def resnet18(keras: Any) -> Any:
    """ResNet18 with the 3x3 stem that small images get: 11.2 M weights."""
    layers = keras.layers

    def convolve(x: Any, filters: int, kernel: int, stride: int) -> Any:
        x = layers.Conv2D(
            filters, kernel, strides=stride, padding="same", use_bias=False
        )(x)
        return layers.BatchNormalization()(x)

    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(convolve(inputs, 64, 3, 1))
    for filters, first in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first, 1):
            y = layers.ReLU()(convolve(x, filters, 3, stride))
            y = convolve(y, filters, 3, 1)
            if x.shape[-1] != filters:
                x = convolve(x, filters, 1, stride)
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def mobilenet(keras: Any) -> Any:
    """keras.applications.MobileNet for 32x32 images: 3.2 M weights."""
    model = keras.applications.MobileNet(
        (32, 32, 3), weights=None, include_top=False, pooling="avg", dropout=0.0
    )
    return keras.Model(model.input, keras.layers.Dense(10)(model.output))


def lenet(keras: Any) -> Any:
    """LeNet-300-100: 266 k weights in three Dense layers."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((784,)),
            layers.Dense(300),
            layers.ReLU(),
            layers.Dense(100),
            layers.ReLU(),
            layers.Dense(10),
        ]
    )


def transformer(keras: Any) -> Any:
    """An encoder of four layers of width 256 with four heads: 3.2 M weights."""
    layers = keras.layers
    inputs = keras.Input((64, 256))
    x = inputs
    for _ in range(4):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 64)(y, y)])
        y = layers.Dense(1024, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(256)(y)])
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


NETWORKS = {
    "ResNet18": Network(resnet18, (32, 32, 3), 32),
    "MobileNet": Network(mobilenet, (32, 32, 3), 64),
    "LeNet-300-100": Network(lenet, (784,), 128),
    "Transformer": Network(transformer, (64, 256), 32, has_attention=True),
}
