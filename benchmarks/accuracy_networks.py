"""The three networks of the accuracy comparison, and the budget of each.

Small enough that a training takes about a minute of one processor core, and different
enough: fully connected; residual; depthwise separable. The convolutional ones leave the
large images early, because there the time goes and not the weights.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import common  # noqa: F401  # before the others: it finds the examples
import data
from accuracy_layers import FastConv2D, FastDepthwiseConv2D


@functools.cache
def load_images() -> data.ImageData:
    """Fashion-MNIST, a tenth of it for validation."""
    return data.load("fashion_mnist", None, validation_fraction=0.1)


@dataclasses.dataclass(frozen=True)
class Task:
    """A network and what every training of it gets.

    Attributes:
        build: makes the network with a `keras` (or `tf_keras`) module, from images
            `(28, 28, 1)` to 10 logits.
        epochs: of the whole training.
        images: how many of the training examples: whole batches, so that one program
            serves all steps.
        batch_size: examples in a step.
        learning_rates: at the start, by the name of the optimizer; then a cosine.
        channel_sparsity: the part of the channels, the same everywhere, without which
            half of the multiplications are left.
        load: the data, with `x_train`, `y_train` and so on.
        preload: the module that reads, once for many processes, what all need.
        prune: arguments of `prune_model` for all methods.
        part: what the path of a kernel has that can be pruned, a regular expression.
        tuned_as: the task whose candidates were compared for this one, too.
        teacher: the task of which a dense network teaches, by distillation.
    """

    build: Callable[[Any], Any]
    epochs: int
    images: int
    batch_size: int
    learning_rates: dict[str, float]
    channel_sparsity: float
    load: Callable[[], Any] = load_images
    preload: str = "accuracy_preload"
    prune: dict[str, Any] = dataclasses.field(default_factory=dict)
    part: str = ""
    tuned_as: str = ""
    teacher: str = ""

    @property
    def steps_per_epoch(self) -> int:
        """Batches, the last one smaller."""
        return math.ceil(self.images / self.batch_size)


def lenet(keras: Any) -> Any:
    """LeNet-300-100: 266 200 weights in three Dense layers."""
    layers = keras.layers
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


class _Convolutions:
    """The layers that the two convolutional networks are made of."""

    def __init__(self, keras: Any) -> None:
        self.layers = layers = keras.layers
        # TFMOT, in `tf_keras`, knows the stock ones alone.
        is_ours = issubclass(FastConv2D, layers.Layer)
        self.ordinary = FastConv2D if is_ours else layers.Conv2D
        self.depthwise = FastDepthwiseConv2D if is_ours else layers.DepthwiseConv2D

    def normalize(self, x: Any) -> Any:
        # Keras's momentum of 0.99 needs far more steps than there are.
        return self.layers.BatchNormalization(momentum=0.9)(x)

    def activate(self, x: Any) -> Any:
        return self.layers.ReLU()(self.normalize(x))

    def convolve(self, x: Any, filters: int, size: int, strides: int = 1) -> Any:
        return self.ordinary(filters, size, strides, padding="same", use_bias=False)(x)

    def separate(self, x: Any, strides: int) -> Any:
        return self.depthwise(3, strides, padding="same", use_bias=False)(x)

    def classify(self, x: Any) -> Any:
        return self.layers.Dense(10)(self.layers.GlobalAveragePooling2D()(x))


def resnet(keras: Any) -> Any:
    """A residual network of eight layers: 77 000 weights, 0.7 M multiplications."""
    make = _Convolutions(keras)
    inputs = keras.Input((28, 28, 1))
    x = make.activate(make.convolve(inputs, 16, 3, 2))
    for filters in (16, 32, 64):
        y = make.activate(make.convolve(x, filters, 3, 2))
        y = make.normalize(make.convolve(y, filters, 3))
        x = make.normalize(make.convolve(x, filters, 1, 2))
        x = make.layers.ReLU()(make.layers.Add()([x, y]))
    return keras.Model(inputs, make.classify(x), name="resnet")


def mobilenet(keras: Any) -> Any:
    """Depthwise separable convolutions: 77 000 weights, 0.6 M multiplications."""
    make = _Convolutions(keras)
    inputs = keras.Input((28, 28, 1))
    x = make.activate(make.convolve(inputs, 24, 3, 2))
    for filters, strides in ((48, 2), (96, 2), (96, 1), (192, 2), (192, 1)):
        x = make.activate(make.separate(x, strides))
        x = make.activate(make.convolve(x, filters, 1))
    return keras.Model(inputs, make.classify(x), name="mobilenet")


TASKS = {
    "lenet": Task(lenet, 8, 24_064, 128, {"sgd": 0.1, "adam": 2e-3}, 0.472),
    "resnet": Task(resnet, 6, 12_032, 64, {"sgd": 0.1, "adam": 4e-3}, 0.296),
    "mobilenet": Task(mobilenet, 6, 12_032, 64, {"sgd": 0.1, "adam": 4e-3}, 0.315),
}

# Whole batches of both sizes, and most of the 54 000 images there are.
_ALL_IMAGES = 53_888

BUDGETS = {
    "short": lambda task: {},
    "full": lambda task: {"epochs": 3 * task.epochs, "images": _ALL_IMAGES},
}
"""What changes of a training, by the name of the budget: `full` is a user's."""
