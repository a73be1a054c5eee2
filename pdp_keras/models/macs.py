"""`count_macs`: the multiplications with weights that one example costs."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import layers, tree

# From a layer, its input and its output, both of batch 1, to its multiplications.
_Count = Callable[[Any, Any, Any], int]


def count_macs(model: Any) -> int:
    """The multiply-accumulates of a model for one example.

    For each layer the numbers that it puts out, times the weights that each of them
    is summed from; for a convolution this is

        output positions * kernel height * kernel width * inputs/groups * filters

    Zeros count like any other weight, so pruning changes the figure only where it
    makes the model smaller. Counted are Dense, EinsumDense, all convolutions
    (depthwise, separable and transposed ones too), SimpleRNN, GRU and LSTM, wherever
    they stand: in nested and subclassed models, in MultiHeadAttention, in wrappers.
    A layer that is called twice counts twice. Not counted: products of activations
    with each other, such as attention scores; biases, normalizations, activations
    and pooling; matrices that a layer of your own multiplies by itself.

    Args:
        model: a built Keras model: Sequential, Functional, or subclassed with one
            argument to its call. All sizes but the batch must be fixed. It is not
            changed.

    Returns:
        The multiply-accumulates with a batch of 1.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if it is not built or a size of its input is not fixed, or for a
            recurrent layer with other cells than those named above.

    Example:

    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    >>> pdp_keras.count_macs(model)  # 6 * 6 positions, 3 * 3 * 3 * 4 weights
    3888
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model. Received: model={model!r}")
    inputs = _inputs_of_one_example(model)
    counts: list[int] = []

    class Traced(layers.Layer):
        """Runs the model on shapes alone."""

        def call(self, inputs: Any) -> Any:
            counts.clear()
            return model(inputs)

    with _counting(model, counts):
        Traced(autocast=False)(inputs)
    return sum(counts)


def _inputs_of_one_example(model: Any) -> Any:
    """Symbolic inputs of batch 1, in the structure that the model's call takes."""
    if not model.built:
        raise ValueError(
            "The model must be built: call it on data, or `model.build(input_shape)`. "
            f"Received: unbuilt model={model.name!r}"
        )
    if isinstance(model, keras.Sequential):
        declared = model.inputs[0]
    elif getattr(model, "inputs", None):
        declared = model.input
    else:
        declared = _recorded_input(model)

    def of_one(tensor: Any) -> Any:
        sizes = tuple(tensor.shape)[1:]
        if None in sizes:
            raise ValueError(
                "Every size of the inputs but the batch must be fixed. Received: "
                f"model={model.name!r} with an input of shape={tuple(tensor.shape)}"
            )
        return keras.KerasTensor((1, *sizes), dtype=tensor.dtype)

    return tree.map_structure(of_one, declared)


def _recorded_input(model: Any) -> Any:
    """What a subclassed model was built for: the shapes, not the dtypes."""
    shapes = list(dict(model.get_build_config() or {}).values())
    if len(shapes) != 1:
        raise ValueError(
            "The call of a subclassed model must take one argument (an array, or a "
            "list, tuple or dict of arrays). "
            f"Received: model={model.name!r} built for {shapes}"
        )
    return tree.map_shape_structure(
        lambda shape: keras.KerasTensor(tuple(shape), dtype="float32"), shapes[0]
    )


@contextlib.contextmanager
def _counting(model: Any, counts: list[int]) -> Iterator[None]:
    """Lets every counted layer of a model report each of its calls."""
    counted = _counted_layers(model)
    try:
        for layer, count in counted:
            # Past Keras's own __setattr__, which looks for layers in what is set.
            object.__setattr__(layer, "call", _reporting(layer, count, counts))
        yield
    finally:
        for layer, _ in counted:
            layer.__dict__.pop("call", None)


def _reporting(layer: Any, count: _Count, counts: list[int]) -> Callable[..., Any]:
    call = layer.call

    @functools.wraps(call)
    def call_and_report(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = call(inputs, *args, **kwargs)
        counts.append(count(layer, inputs, outputs))
        return outputs

    return call_and_report


def _counted_layers(model: Any) -> list[tuple[Any, _Count]]:
    """Each layer with a way to count, once; a recurrent one speaks for its cells."""
    found = {id(layer): layer for layer in model._flatten_layers()}
    for layer in list(found.values()):
        if isinstance(layer, layers.RNN):
            _cells(layer)  # checked here: Keras wraps what is raised within a call
            for inner in layer._flatten_layers(include_self=False):
                found.pop(id(inner), None)
    pairs = []
    for layer in found.values():
        count = next((_COUNTS[c] for c in type(layer).__mro__ if c in _COUNTS), None)
        if count is not None:
            pairs.append((layer, count))
    return pairs


def _cells(layer: Any) -> list[Any]:
    """The cells of a recurrent layer."""
    cell = layer.cell
    cells = list(cell.cells) if isinstance(cell, layers.StackedRNNCells) else [cell]
    known = (layers.SimpleRNNCell, layers.GRUCell, layers.LSTMCell)
    if not all(isinstance(cell, known) for cell in cells):
        raise ValueError(
            "A recurrent layer must have cells of SimpleRNN, GRU or LSTM to be "
            f"counted. Received: layer={layer.name!r} with "
            f"{[type(cell).__name__ for cell in cells]}"
        )
    return cells


def _size(tensor: Any) -> int:
    return math.prod(tensor.shape)


def _of_dense(layer: Any, inputs: Any, outputs: Any) -> int:
    return _size(outputs) * layer.kernel.shape[0]


def _of_einsum(layer: Any, inputs: Any, outputs: Any) -> int:
    _, rest = layer.equation.replace(" ", "").split(",")
    kernel, kept = rest.split("->")
    axes = zip(kernel, layer.kernel.shape, strict=True)
    return _size(outputs) * math.prod(size for axis, size in axes if axis not in kept)


def _of_convolution(layer: Any, inputs: Any, outputs: Any) -> int:
    return _size(outputs) * math.prod(layer.kernel.shape[:-1])


def _of_depthwise(layer: Any, inputs: Any, outputs: Any) -> int:
    return _size(outputs) * math.prod(layer.kernel.shape[:-2])


def _of_separable(layer: Any, inputs: Any, outputs: Any) -> int:
    weights = _size(layer.depthwise_kernel) + _size(layer.pointwise_kernel)
    return _size(outputs) // layer.filters * weights


def _of_transposed(layer: Any, inputs: Any, outputs: Any) -> int:
    return _size(inputs) * math.prod(layer.kernel.shape[:-1])


def _of_recurrent(layer: Any, inputs: Any, outputs: Any) -> int:
    cells = _cells(layer)
    weights = sum(_size(c.kernel) + _size(c.recurrent_kernel) for c in cells)
    return inputs.shape[1] * weights


_COUNTS: dict[type, _Count] = {
    layers.Dense: _of_dense,
    layers.EinsumDense: _of_einsum,
    layers.RNN: _of_recurrent,
    **dict.fromkeys((layers.Conv1D, layers.Conv2D, layers.Conv3D), _of_convolution),
    **dict.fromkeys((layers.DepthwiseConv1D, layers.DepthwiseConv2D), _of_depthwise),
    **dict.fromkeys((layers.SeparableConv1D, layers.SeparableConv2D), _of_separable),
    **dict.fromkeys(
        (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
        _of_transposed,
    ),
}
