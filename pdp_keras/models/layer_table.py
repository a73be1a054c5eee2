"""Which variables of which Keras layer are pruned, and along which axes.

One table for every weighted class of `keras.layers`. A subclass inherits the row
of its nearest base class; a custom layer gets a row with
`register_prunable_layer`. Three kinds of row:

- `Prunable`: dotted attribute paths to the kernels, with the meaning of their axes;
- `NotPruned`: the reason why the weights of this class are left alone;
- `Container`: it owns no kernel; its sublayers have rows of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import layers

from pdp_keras.models.axes import KernelAxes

AxesOf = KernelAxes | Callable[[Any], KernelAxes]


@dataclasses.dataclass(frozen=True)
class Prunable:
    """Kernels by attribute path, each with its axes or a function of the layer.

    Those in `optional` exist in some configurations of the layer only.
    """

    kernels: Mapping[str, AxesOf]
    optional: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class NotPruned:
    """Weights that are left alone, and why."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Container:
    """A layer that owns no kernel itself; its sublayers are looked up."""


Row = Prunable | NotPruned | Container

_MATRIX = KernelAxes(inputs=(0,), outputs=(1,))
_CONVOLUTION = KernelAxes(inputs=(-2,), outputs=(-1,))
_TRANSPOSED = KernelAxes(inputs=(-1,), outputs=(-2,))
_DEPTHWISE = KernelAxes(inputs=(), outputs=(-2, -1))
_LOOKED_UP = KernelAxes(inputs=(), outputs=(1,))


def einsum_axes(layer: keras.layers.EinsumDense) -> KernelAxes:
    """The axes of an `EinsumDense` kernel, read off its equation.

    A kernel axis that the output keeps is an output axis (unless the input has it
    too: then it is a batch axis, summed over by nobody); the others are summed.
    """
    inputs, rest = layer.equation.replace(" ", "").split(",")
    kernel, outputs = rest.split("->")
    return KernelAxes(
        inputs=tuple(i for i, axis in enumerate(kernel) if axis not in outputs),
        outputs=tuple(
            i for i, axis in enumerate(kernel) if axis in outputs and axis not in inputs
        ),
    )


def _projection_axes(attribute: str) -> Callable[[Any], KernelAxes]:
    return lambda attention: einsum_axes(getattr(attention, attribute))


def _projections(*attributes: str) -> Prunable:
    return Prunable({f"{name}.kernel": _projection_axes(name) for name in attributes})


_CELL = Prunable({"kernel": _MATRIX, "recurrent_kernel": _MATRIX})
_RECURRENT = Prunable({"cell.kernel": _MATRIX, "cell.recurrent_kernel": _MATRIX})
_CONV_RECURRENT = Prunable(
    {"cell.kernel": _CONVOLUTION, "cell.recurrent_kernel": _CONVOLUTION}
)
_CONV = Prunable({"kernel": _CONVOLUTION})
_CONV_TRANSPOSE = Prunable({"kernel": _TRANSPOSED})
_DEPTHWISE_CONV = Prunable({"kernel": _DEPTHWISE})
_SEPARABLE_CONV = Prunable(
    {"depthwise_kernel": _DEPTHWISE, "pointwise_kernel": _CONVOLUTION}
)
_ATTENTION = _projections("_query_dense", "_key_dense", "_value_dense", "_output_dense")
NORMALIZATION = NotPruned(
    "normalization: its few weights scale and shift whole channels"
)
_SCALE = NotPruned("attention scale: a handful of weights that scale the scores")
_FOREIGN = NotPruned("its weights belong to another framework")

_ROWS: dict[type, Row] = {
    layers.Dense: Prunable({"kernel": _MATRIX}),
    layers.EinsumDense: Prunable({"kernel": einsum_axes}),
    layers.Embedding: Prunable({"embeddings": _LOOKED_UP}),
    layers.Conv1D: _CONV,
    layers.Conv2D: _CONV,
    layers.Conv3D: _CONV,
    layers.Conv1DTranspose: _CONV_TRANSPOSE,
    layers.Conv2DTranspose: _CONV_TRANSPOSE,
    layers.Conv3DTranspose: _CONV_TRANSPOSE,
    layers.DepthwiseConv1D: _DEPTHWISE_CONV,
    layers.DepthwiseConv2D: _DEPTHWISE_CONV,
    layers.SeparableConv1D: _SEPARABLE_CONV,
    layers.SeparableConv2D: _SEPARABLE_CONV,
    layers.LSTM: _RECURRENT,
    layers.GRU: _RECURRENT,
    layers.SimpleRNN: _RECURRENT,
    layers.LSTMCell: _CELL,
    layers.GRUCell: _CELL,
    layers.SimpleRNNCell: _CELL,
    layers.ConvLSTM1D: _CONV_RECURRENT,
    layers.ConvLSTM2D: _CONV_RECURRENT,
    layers.ConvLSTM3D: _CONV_RECURRENT,
    layers.MultiHeadAttention: _ATTENTION,
    layers.GroupQueryAttention: _ATTENTION,
    layers.Attention: _SCALE,
    layers.AdditiveAttention: _SCALE,
    layers.BatchNormalization: NORMALIZATION,
    layers.LayerNormalization: NORMALIZATION,
    layers.GroupNormalization: NORMALIZATION,
    layers.Normalization: NotPruned("statistics of the data, not trained weights"),
    layers.PReLU: NotPruned("activation slopes, not a kernel"),
    layers.SpectralNormalization: NotPruned(
        "it overwrites the kernel of its layer in `call`; a mask would be lost"
    ),
    layers.RNN: Container(),
    layers.StackedRNNCells: Container(),
    layers.Bidirectional: Container(),
    layers.TimeDistributed: Container(),
    keras.Model: Container(),
}

# Classes that some supported Keras versions do not have.
_OPTIONAL_ROWS: dict[str, Row] = {
    "ReversibleEmbedding": Prunable(
        {"embeddings": _LOOKED_UP, "reverse_embeddings": _MATRIX},
        optional=frozenset({"reverse_embeddings"}),
    ),
    "RMSNormalization": NORMALIZATION,
    "STFTSpectrogram": NotPruned("a fixed transform, not trained weights"),
    "JaxLayer": _FOREIGN,
    "FlaxLayer": _FOREIGN,
    "TFSMLayer": _FOREIGN,
    "TorchModuleWrapper": _FOREIGN,
}
_ROWS.update(
    {
        getattr(layers, name): row
        for name, row in _OPTIONAL_ROWS.items()
        if hasattr(layers, name)
    }
)


def find_row(layer_class: type) -> Row | None:
    """The row of a layer class or of its nearest base class; None without one."""
    return next((_ROWS[c] for c in layer_class.__mro__ if c in _ROWS), None)


def find_with_call(table: Mapping[Any, Any], operation_class: Any) -> Any:
    """The entry of a class, or of a base class whose `call` it inherits.

    Args:
        table: by class, or by `module.Name` of classes that are not public.
        operation_class: of a layer or operation.

    Returns:
        None without one, and for a class that has a `call` of its own.
    """
    for base in operation_class.__mro__:
        entry = table.get(base) or table.get(f"{base.__module__}.{base.__name__}")
        if entry is not None:
            return entry if operation_class.call is base.call else None
    return None


def register_prunable_layer(
    layer_class: type, kernels: Mapping[str, AxesOf] | None = None, *, reason: str = ""
) -> None:
    """Gives a custom layer class a row in the table.

    Args:
        layer_class: a subclass of `keras.layers.Layer`. Its subclasses inherit the
            row.
        kernels: attribute path of each prunable variable (`"kernel"`,
            `"cell.kernel"`) to its `KernelAxes`, or to a function from the layer
            to its `KernelAxes`.
        reason: in place of `kernels`: why the class is not pruned.

    Raises:
        TypeError: if `layer_class` is not a layer class.
        ValueError: unless exactly one of `kernels` and `reason` is given.

    Example:

    >>> class Scale(keras.layers.Layer):
    ...     def build(self, shape):
    ...         self.matrix = self.add_weight(shape=(shape[-1], 8))
    >>> register_prunable_layer(
    ...     Scale, {"matrix": KernelAxes(inputs=(0,), outputs=(1,))}
    ... )
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, layers.Layer)):
        raise TypeError(
            "layer_class must be a subclass of keras.layers.Layer. "
            f"Received: layer_class={layer_class!r}"
        )
    if bool(kernels) == bool(reason):
        raise ValueError(
            "Exactly one of `kernels` and `reason` must be given. "
            f"Received: kernels={kernels!r}, reason={reason!r}"
        )
    _ROWS[layer_class] = Prunable(dict(kernels)) if kernels else NotPruned(reason)
