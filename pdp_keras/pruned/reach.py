"""Whether a call of a pruned model goes through its wrappers.

Somebody's own model may have kept a layer, or a method of it, where nothing can take
its place: in a closure, an object of its own, a compiled function. Its call would then
go past the wrapper and compute with the weights as they are. What a call reaches shows
when it is traced.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import tree

from pdp_keras.layers import MaskedLayer, noted_calls

# What is traced is a batch of so many, where its size is open.
_BATCH = 2


def require_reached(model: Any, wrappers: Sequence[MaskedLayer]) -> None:
    """Checks that no call goes past a wrapper to the weights of its layer.

    A model that cannot be traced, for want of known inputs, is not checked. PyTorch
    traces nothing: there it is run once, on zeros.

    Args:
        model: a built subclassed model.
        wrappers: those in it.

    Raises:
        ValueError: if one does.
    """
    used_in = _TRACERS[keras.backend.backend()]
    for dtype in ("float32", "int32"):
        with noted_calls() as called, contextlib.suppress(_Untraceable):
            is_used = used_in(model, _inputs(model, dtype))
            break
    else:
        return
    past = [
        wrapper.name
        for wrapper in wrappers
        if id(wrapper) not in called
        and any(is_used(variable) for variable in wrapper.layer.trainable_variables)
    ]
    if past:
        raise ValueError(
            "The `call` of a model must reach every layer by an attribute of the model "
            "(or a list, tuple or dict in one), where a wrapper can take its place; a "
            "closure, an object of one's own, a bound method or a compiled function "
            "keeps the layer itself, which would stay dense. "
            f"Received: model={model.name!r} of class {type(model).__name__}, whose "
            f"call goes past the wrappers of {past}"
        )


class _Untraceable(Exception):
    """The model's inputs are not known well enough."""


def _inputs(model: Any, dtype: str) -> dict[str, Any]:
    """The arguments of its call, as it was built: the shapes, not the dtypes."""

    def tensor(shape: Any) -> Any:
        sizes = tuple(_BATCH if size is None else size for size in shape)
        return keras.KerasTensor(sizes, dtype=dtype)

    config = dict(model.get_build_config() or {})
    shapes = config.get("shapes_dict") or config
    if not shapes:
        raise _Untraceable
    return {
        name.removesuffix("_shape"): tree.map_shape_structure(tensor, shape)
        for name, shape in shapes.items()
    }


def _called(model: Any, inputs: dict[str, Any]) -> Any:
    if len(inputs) == 1:  # which may have any name
        (value,) = inputs.values()
        return model(value, training=False)
    return model(**inputs, training=False)


@contextlib.contextmanager
def _tracing() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:  # whatever somebody's code raises for such inputs
            raise _Untraceable from error


def _used_on_tensorflow(model: Any, inputs: dict[str, Any]) -> Callable[[Any], bool]:
    import tensorflow as tf

    specs = tree.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), inputs)
    program = tf.function(lambda inputs: _called(model, inputs), autograph=False)
    with _tracing():
        graph = program.get_concrete_function(specs).graph
    captured = {id(outer) for outer, _ in graph.captures}
    return lambda variable: id(variable.value.handle) in captured


def _used_on_jax(model: Any, inputs: dict[str, Any]) -> Callable[[Any], bool]:
    import jax

    def call(inputs: dict[str, Any]) -> Any:
        with keras.StatelessScope():  # or else layers would keep tracers
            return _called(model, inputs)

    specs = tree.map_structure(lambda x: jax.numpy.zeros(x.shape, x.dtype), inputs)
    with _tracing():
        program = jax.make_jaxpr(call)(specs)
    used = {id(constant) for constant in program.consts}
    return lambda variable: id(variable.value) in used


def _used_on_torch(model: Any, inputs: dict[str, Any]) -> Callable[[Any], bool]:
    import torch
    from torch.overrides import TorchFunctionMode

    used: set[int] = set()

    class Noting(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            used.update(map(id, tree.flatten((args, kwargs or {}))))
            return function(*args, **(kwargs or {}))

    zeros = tree.map_structure(lambda x: keras.ops.zeros(x.shape, x.dtype), inputs)
    with _tracing(), keras.StatelessScope(), torch.no_grad(), Noting():
        _called(model, zeros)
    return lambda variable: id(variable.value) in used


_TRACERS: dict[str, Any] = {
    "tensorflow": _used_on_tensorflow,
    "jax": _used_on_jax,
    "torch": _used_on_torch,
}
