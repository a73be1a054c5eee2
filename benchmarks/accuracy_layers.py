"""Convolutions of Keras, computed in a way that is fast in XLA on a processor.

The same functions with the same weights. XLA takes a depthwise convolution for an
ordinary one of every channel by itself, and small ordinary ones run at half the speed
of a product of matrices. Of padding these know `"same"`, and no bias.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import keras
from keras import layers, ops

import pdp_keras
from pdp_keras.channels.rules.base import RULES

Tensor = Any


@keras.saving.register_keras_serializable(package="accuracy")
class FastConv2D(layers.Conv2D):
    """Conv2D as one product of matrices: the windows of the image, and the kernel."""

    def call(self, inputs: Tensor) -> Tensor:
        """Images `(batch, height, width, channels)` to ones of the strided size."""
        windows = [image for _, image in _shifted(inputs, self)]
        joined = windows[0] if len(windows) == 1 else ops.concatenate(windows, -1)
        return ops.matmul(joined, ops.reshape(self.kernel, (-1, self.filters)))


@keras.saving.register_keras_serializable(package="accuracy")
class FastDepthwiseConv2D(layers.DepthwiseConv2D):
    """DepthwiseConv2D as a sum of shifted images, each times one weight a channel."""

    def call(self, inputs: Tensor) -> Tensor:
        """Images `(batch, height, width, channels)` to ones of the strided size."""
        products = [
            image * self.kernel[row, column, :, 0]
            for (row, column), image in _shifted(inputs, self)
        ]
        return sum(products[1:], products[0])


def _shifted(inputs: Tensor, layer: Any) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """For each place in the window, what it sees as the window moves."""
    sizes, window, strides = inputs.shape[1:3], layer.kernel_size, layer.strides
    triples = list(zip(sizes, window, strides, strict=True))
    lasts = [stride * ((size - 1) // stride) for size, _, stride in triples]
    padding = [
        max(last + places - size, 0)
        for last, (size, places, _) in zip(lasts, triples, strict=True)
    ]
    around = [(total // 2, total - total // 2) for total in padding]
    padded = ops.pad(inputs, [(0, 0), *around, (0, 0)]) if any(padding) else inputs
    for row, column in itertools.product(range(window[0]), range(window[1])):
        rows = slice(row, row + lasts[0] + 1, strides[0])
        columns = slice(column, column + lasts[1] + 1, strides[1])
        yield (row, column), padded[:, rows, columns]


# A layer with a `call` of its own does not inherit the way of its channels.
for fast in (FastConv2D, FastDepthwiseConv2D):
    pdp_keras.register_channel_rule(fast, RULES[fast.__bases__[0]])
