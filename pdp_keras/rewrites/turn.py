"""`half_turn`: the same function computed on an image that is turned by 180 degrees.

Why it is exact: let F reverse height and width. A convolution with kernel k and zero
padding commutes with it in the sense that `F(conv(x, k)) = conv(F(x), F(k))`, if the
windows lie on the turned image where they lay on the other: what was padding before
the image is now padding behind it. Whatever acts on each position alone commutes with
F, sums and products of turned tensors are turned, and a mean over all positions does
not know F at all. So once the image is turned and every kernel with it, the network
computes the same numbers, each at the turned position.

Why it is done: "same" padding at a stride of 2 and an even size is (0, 1), nothing
before and one zero behind. Turned it is (1, 0), and that is what is read of padding
(1, 1), which devices' sparse kernels know: `padding` then makes it so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from pdp_keras.models import find_with_call
from pdp_keras.rewrites.graph_copy import (
    Arrays,
    Call,
    Copies,
    Graph,
    Tensors,
    flattened,
    is_of_keras,
    rebuilt,
)
from pdp_keras.rewrites.windowed_layers import (
    CONVOLUTIONS,
    emit_convolution,
    find_windows,
)

# Makes a call on turned inputs, so that its outputs are turned; None if it cannot.
_Turn = Callable[["_Turning", Call, Tensors], Any]


def half_turn(model: Any, *, turn_inputs: bool = True) -> Any:
    """A model that computes on images turned by 180 degrees, with the same outputs.

    Layers that it does not know, or that know up from down, get their images as they
    were: the result is exact for every model. Behind such a layer (a Resizing in front
    of the network, say) the turned part begins where padding becomes symmetric by it.

    Args:
        model: a built Sequential or Functional model; not changed. Its images are the
            inputs and outputs of shape (batch, height, width, channels).
        turn_inputs: whether the new model turns its images itself and so takes the
            same inputs as the old one. With False the caller gives them turned:
            `image[:, ::-1, ::-1]`.

    Returns:
        A Functional model without nested ones. Outputs that are images come out as
        the old model's, not turned.

    Raises:
        ValueError: if the model has no graph.

    Example:

    >>> turned = half_turn(model, turn_inputs=False)
    >>> turned.predict(images[:, ::-1, ::-1])  # model.predict(images)
    """
    graph = Graph(flattened(model))
    turning = _Turning(graph, turn_inputs)

    def prepare(old: Any, new: Any) -> Any:
        return _flip(new) if turn_inputs and id(old) in turning.turned else new

    def finish(old: Any, new: Any) -> Any:
        return _flip(new) if id(old) in turning.turned else new

    return rebuilt(graph, turning.emit, turning.copies, prepare, finish)


def is_image(tensor: Any) -> bool:
    """Whether a tensor has positions that a turn exchanges."""
    return len(tensor.shape) == 4 and tuple(tensor.shape[1:3]) != (1, 1)


class _Turning:
    """One pass over a graph.

    Attributes:
        graph: of the old model.
        copies: of its layers.
        turned: ids of the old model's symbolic tensors that are turned in the new one.
    """

    def __init__(self, graph: Graph, turn_inputs: bool) -> None:
        self.graph = graph
        self.copies = Copies(graph)
        self.turned = {
            id(x)
            for x in graph.model.inputs
            if is_image(x)
            # Turned by the caller in any case, by the model only to some purpose.
            and not (turn_inputs and any(_rule(c) is None for c in graph.readers(x)))
        }
        self._begins = set(_beginnings(graph))

    def emit(self, call: Call, tensors: Tensors) -> Any:
        """Makes a call turned if it can be, else on images as they were."""
        images = [x for x in call.inputs if is_image(x)]
        turn = _rule(call)
        begins = id(call) in self._begins
        if turn and images and (begins or all(id(x) in self.turned for x in images)):
            forward = {id(x): self._in_form(x, tensors, True) for x in call.inputs}
            outputs = turn(self, call, forward)
            if outputs is not None:
                self.turned.update(id(x) for x in call.outputs if is_image(x))
                return outputs
        back = {id(x): self._in_form(x, tensors, False) for x in call.inputs}
        return call.applied(self.copies.of(call.operation), back)

    def _in_form(self, x: Any, tensors: Tensors, turned: bool) -> Any:
        """The new tensor for an old one, turned or not if it is an image."""
        fits = not is_image(x) or (id(x) in self.turned) == turned
        return tensors[id(x)] if fits else _flip(tensors[id(x)])


def _rule(call: Call) -> _Turn | None:
    return find_with_call(_TURNS, type(call.operation))


def _beginnings(graph: Graph) -> Iterator[int]:
    """Ids of the calls whose padding, or that behind, is symmetric once turned."""
    for call in graph.calls:
        if type(call.operation) not in CONVOLUTIONS:
            continue
        windowed = find_windows(graph, call)
        if windowed is not None:
            both = windowed.rows, windowed.columns
            before = [windows.symmetric for windows in both]
            after = [windows.turned().symmetric for windows in both]
            if None in before and None not in after:
                yield id(windowed.padding_call or call)


def _flip(x: Any) -> Any:
    return ops.flip(x, axis=(1, 2))


def _as_it_is(turning: _Turning, call: Call, tensors: Tensors) -> Any:
    return call.applied(turning.copies.of(call.operation), tensors)


def _channels_last(turning: _Turning, call: Call, tensors: Tensors) -> Any:
    if call.operation.data_format == "channels_last":
        return _as_it_is(turning, call, tensors)
    return None


def _along_channels(turning: _Turning, call: Call, tensors: Tensors) -> Any:
    """A layer that knows one axis, if that is the last one."""
    axis = call.operation.axis
    axes = list(axis) if isinstance(axis, list | tuple) else [axis]
    if all(a is not None and a % 4 == 3 for a in axes):
        return _as_it_is(turning, call, tensors)
    return None


def _normalization(turning: _Turning, call: Call, tensors: Tensors) -> Any:
    if call.operation.axis in ((), None, (-1,), (3,), -1, 3):
        return _as_it_is(turning, call, tensors)
    return None


def _activation(turning: _Turning, call: Call, tensors: Tensors) -> Any:
    # Any other function might look at the positions.
    if is_of_keras(call.operation.activation):
        return _as_it_is(turning, call, tensors)
    return None


def _merge(turning: _Turning, call: Call, tensors: Tensors) -> Any:
    # A vector beside an image would be matched with its columns.
    if all(len(x.shape) == 4 for x in call.inputs):
        return _as_it_is(turning, call, tensors)
    return None


def _elementwise(turning: _Turning, call: Call, tensors: Tensors) -> Any:
    given = [*call.arguments[0], *call.arguments[1].values()]
    constants = [x for x in given if not isinstance(x, keras.KerasTensor)]
    if all(x is None or isinstance(x, bool | int | float) for x in constants):
        return _merge(turning, call, tensors)
    return None


def _rescaling(turning: _Turning, call: Call, tensors: Tensors) -> Any:
    layer = call.operation
    if max(np.ndim(layer.scale), np.ndim(layer.offset)) <= 1:
        return _as_it_is(turning, call, tensors)
    return None


def _parametric(turning: _Turning, call: Call, tensors: Tensors) -> Any:
    if not turning.graph.is_called_once(call):
        return None

    def flipped(values: Arrays) -> Arrays:
        return [values[0][::-1, ::-1]]

    return call.applied(turning.copies.of(call.operation, convert=flipped), tensors)


def _convolution(turning: _Turning, call: Call, tensors: Tensors) -> Any:
    layer = call.operation
    # Its own ZeroPadding2D, if any, has been turned already and stays where it is.
    windowed = find_windows(turning.graph, call, with_padding=False)
    if windowed is None or not is_of_keras(layer.activation):
        return None

    def flipped(values: Arrays) -> Arrays:
        # The first kernel has the window; a separable layer's second has none.
        return [values[0][::-1, ::-1], *values[1:]]

    return emit_convolution(
        turning.copies,
        layer,
        tensors[id(call.inputs[0])],
        windowed.rows.turned(),
        windowed.columns.turned(),
        flipped,
        "turned",
    )


def _pooling(turning: _Turning, call: Call, tensors: Tensors) -> Any:
    windowed = find_windows(turning.graph, call)
    if windowed is not None and all(
        windows.turned() == windows for windows in (windowed.rows, windowed.columns)
    ):
        return _as_it_is(turning, call, tensors)
    return None


def _margins(turning: _Turning, call: Call, tensors: Tensors) -> Any:
    """ZeroPadding2D and Cropping2D: before and behind change places."""
    name = "padding" if hasattr(call.operation, "padding") else "cropping"
    if call.operation.data_format != "channels_last":
        return None

    def change(config: dict[str, Any]) -> dict[str, Any]:
        return {**config, name: tuple((b, a) for a, b in config[name])}

    copy = turning.copies.of(call.operation, change, variant="turned")
    return call.applied(copy, tensors)


def _upsampling(turning: _Turning, call: Call, tensors: Tensors) -> Any:
    if call.operation.interpolation in ("nearest", "bilinear"):
        return _channels_last(turning, call, tensors)
    return None


def _mean(turning: _Turning, call: Call, tensors: Tensors) -> Any:
    axis = call.operation.axis
    if isinstance(axis, list | tuple) and {1, 2} <= {a % 4 for a in axis}:
        return _as_it_is(turning, call, tensors)
    return None


_TURNS: dict[type | str, _Turn] = {
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    layers.Activation: _activation,
    layers.Dense: _activation,
    layers.PReLU: _parametric,
    layers.Rescaling: _rescaling,
    layers.Normalization: _normalization,
    layers.UpSampling2D: _upsampling,
    **dict.fromkeys((layers.ZeroPadding2D, layers.Cropping2D), _margins),
    **dict.fromkeys((layers.MaxPooling2D, layers.AveragePooling2D), _pooling),
    **dict.fromkeys(
        (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D), _channels_last
    ),
    **dict.fromkeys(
        (
            layers.BatchNormalization,
            layers.LayerNormalization,
            layers.GroupNormalization,
            layers.Concatenate,
            layers.Softmax,
        ),
        _along_channels,
    ),
    **dict.fromkeys(
        (
            layers.ReLU,
            layers.LeakyReLU,
            layers.ELU,
            layers.Identity,
            layers.Dropout,
            layers.SpatialDropout2D,
            layers.GaussianDropout,
            layers.GaussianNoise,
            layers.AlphaDropout,
            layers.ActivityRegularization,
        ),
        _as_it_is,
    ),
    **dict.fromkeys(
        (
            layers.Add,
            layers.Subtract,
            layers.Multiply,
            layers.Average,
            layers.Maximum,
            layers.Minimum,
        ),
        _merge,
    ),
    # The classes of operations are not public, so these rows go by their names.
    **dict.fromkeys(
        (
            *(
                f"keras.src.ops.numpy.{name}"
                for name in (
                    *("Add", "Subtract", "Multiply", "Divide", "TrueDivide"),
                    *("Maximum", "Minimum", "Negative", "Square", "Sqrt", "Absolute"),
                )
            ),
            *(
                f"keras.src.ops.nn.{name}"
                for name in ("Relu", "Relu6", "Sigmoid", "Silu", "HardSigmoid", "Gelu")
            ),
        ),
        _elementwise,
    ),
    "keras.src.ops.numpy.Mean": _mean,
}
