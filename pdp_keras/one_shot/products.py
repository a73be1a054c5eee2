"""Layers as products of matrices: rows of inputs times a kernel.

What a method looks at is `x @ w` with `x` of shape `(rows, inputs)` and `w` of shape
`(inputs, outputs)`, whatever the layer: of a convolution the rows are its windows.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from pdp_keras.models import Kernel

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Product:
    """One kernel of a layer whose outputs are sums of its inputs.

    Attributes:
        kernel: which one.
        layer: the layer that is called with its inputs.
        blocks: of a grouped convolution, its groups: each has inputs of its own.
        run: so many consecutive inputs of a row lie at one place of the window; groups
            of N:M do not go beyond.
        rows: gives from what the layer is called with arrays
            `(blocks, rows, inputs)`, one after the other.
        split: from the kernel's value to `(blocks, inputs, outputs)`.
        join: the inverse of `split`.
    """

    kernel: Kernel
    layer: Any
    blocks: int
    run: int
    rows: Callable[[Array], Iterator[Array]]
    split: Callable[[Array], Array]
    join: Callable[[Array], Array]


def product_of(kernel: Kernel) -> Product | None:
    """The product that a kernel takes part in; None if its layer is none."""
    prefix = kernel.name.rpartition(".")[0]
    layer = operator.attrgetter(prefix)(kernel.owner) if prefix else kernel.owner
    base: Any
    for base, make in _PRODUCTS.items():
        # A subclass with a `call` of its own may do anything.
        if isinstance(layer, base) and type(layer).call is base.call:
            made: Product | None = make(kernel, layer)
            return made
    return None


def _dense(kernel: Kernel, layer: Any) -> Product:
    return Product(
        kernel,
        layer,
        blocks=1,
        run=kernel.shape[0],
        rows=lambda x: iter([x.reshape(1, -1, kernel.shape[0])]),
        split=lambda w: w[None],
        join=lambda w: w[0],
    )


def _einsum(kernel: Kernel, layer: Any) -> Product | None:
    inputs, rest = layer.equation.replace(" ", "").split(",")
    letters, outputs = rest.split("->")
    summed = [letter for letter in letters if letter not in outputs]
    kept = [letter for letter in letters if letter in outputs]
    # What the inputs have too is a batch axis of the kernel.
    if not summed or any(letter in inputs for letter in kept):
        return None
    if any(letter not in inputs for letter in summed):
        return None
    # From the end: an ellipsis stands for any number of axes in front.
    axes = [inputs.index(letter) - len(inputs) for letter in summed]
    order = [letters.index(letter) for letter in (*summed, *kept)]
    shape = [kernel.shape[axis] for axis in order]
    width = math.prod(shape[: len(summed)])

    def rows(x: Array) -> Iterator[Array]:
        last = list(range(-len(axes), 0))
        yield np.moveaxis(x, axes, last).reshape(1, -1, width)

    return Product(
        kernel,
        layer,
        blocks=1,
        run=width,
        rows=rows,
        split=lambda w: w.transpose(order).reshape(1, width, -1),
        join=lambda w: w[0].reshape(shape).transpose(np.argsort(order)),
    )


def _convolution(kernel: Kernel, layer: Any) -> Product:
    *window, width, outputs = kernel.shape
    groups, each = layer.groups, outputs // layer.groups
    places = math.prod(window)

    def rows(x: Array) -> Iterator[Array]:
        if layer.data_format == "channels_first":
            x = np.moveaxis(x, 1, -1)
        for sample in x:  # all windows of a batch may be very large
            windows = _windows(sample, window, layer)
            split = windows.reshape(-1, places, groups, width)
            yield split.transpose(2, 0, 1, 3).reshape(groups, -1, places * width)

    def split(w: Array) -> Array:
        blocks = w.reshape(places * width, groups, each)
        return blocks.transpose(1, 0, 2)

    return Product(
        kernel,
        layer,
        blocks=groups,
        run=width,
        rows=rows,
        split=split,
        join=lambda w: w.transpose(1, 0, 2).reshape(kernel.shape),
    )


def _windows(sample: Array, window: list[int], layer: Any) -> Array:
    """All that a kernel is laid on, `(*places, *window, channels)`."""
    pads, spans = [], []
    for size, k, stride, dilation in zip(
        sample.shape, window, layer.strides, layer.dilation_rate, strict=False
    ):
        span = (k - 1) * dilation + 1
        pads.append(_padding(layer.padding, size, span, stride))
        spans.append(span)
    padded = np.pad(sample, [*pads, (0, 0)])
    axes = tuple(range(len(window)))
    views: Array = np.lib.stride_tricks.sliding_window_view(padded, spans, axes)
    strided = views[tuple(slice(None, None, s) for s in layer.strides)]
    places = tuple(slice(None) for _ in window)
    inner = tuple(slice(None, None, d) for d in layer.dilation_rate)
    taken = strided[(*places, slice(None), *inner)]
    return np.moveaxis(taken, len(window), -1)


def _padding(kind: str, size: int, span: int, stride: int) -> tuple[int, int]:
    if kind == "valid":
        return 0, 0
    if kind == "causal":
        return span - 1, 0
    total = max((math.ceil(size / stride) - 1) * stride + span - size, 0)
    return total // 2, total - total // 2


_PRODUCTS: dict[type, Any] = {
    keras.layers.Dense: _dense,
    keras.layers.EinsumDense: _einsum,
    keras.layers.Conv1D: _convolution,
    keras.layers.Conv2D: _convolution,
    keras.layers.Conv3D: _convolution,
}
