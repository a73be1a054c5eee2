"""The three networks of the accuracy comparison, and the budget of each.

Small enough that a training takes about a minute of one processor core, and different
enough: fully connected; residual; depthwise separable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
from keras import layers


@dataclasses.dataclass(frozen=True)
class Task:
    """A network and what every training of it gets.

    Attributes:
        build: makes the network, from images `(28, 28, 1)` to 10 logits.
        epochs: of the whole training.
        images: how many of the 54 000 training images.
        batch_size: images in a step.
        learning_rates: at the start, by the name of the optimizer; then a cosine.
    """

    build: Callable[[], keras.Model]
    epochs: int
    images: int
    batch_size: int
    learning_rates: dict[str, float]


def lenet() -> keras.Model:
    """LeNet-300-100: 266 200 weights in three Dense layers."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Flatten(),
            layers.Dense(300, activation="relu"),
            layers.Dense(100, activation="relu"),
            layers.Dense(10),
        ],
        name="lenet",
    )


def _normalized(x: Any) -> Any:
    # Keras's momentum of 0.99 needs far more steps than there are.
    return layers.BatchNormalization(momentum=0.9)(x)


def _convolution(x: Any, filters: int, size: int, strides: int = 1) -> Any:
    return layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)


def resnet() -> keras.Model:
    """A residual network of eight layers: 78 000 weights, 2.5 M multiplications."""
    inputs = keras.Input((28, 28, 1))
    x = layers.ReLU()(_normalized(_convolution(inputs, 16, 3, 2)))
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        y = layers.ReLU()(_normalized(_convolution(x, filters, 3, strides)))
        y = _normalized(_convolution(y, filters, 3))
        if x.shape != y.shape:
            x = _normalized(_convolution(x, filters, 1, strides))
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x), name="resnet")


def mobilenet() -> keras.Model:
    """Depthwise separable convolutions: 73 000 weights, 2 M multiplications."""
    inputs = keras.Input((28, 28, 1))
    x = layers.ReLU()(_normalized(_convolution(inputs, 24, 3, 2)))
    for filters, strides in ((48, 1), (96, 2), (96, 1), (192, 2), (192, 1)):
        x = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(x)
        x = layers.ReLU()(_normalized(x))
        x = layers.ReLU()(_normalized(_convolution(x, filters, 1)))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x), name="mobilenet")


TASKS = {
    "lenet": Task(lenet, 12, 54_000, 128, {"sgd": 0.1, "adam": 2e-3}),
    "resnet": Task(resnet, 8, 24_000, 128, {"sgd": 0.1, "adam": 4e-3}),
    "mobilenet": Task(mobilenet, 8, 24_000, 128, {"sgd": 0.1, "adam": 4e-3}),
}
