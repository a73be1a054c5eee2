"""Functions that a user's model has compiled, and what they remember.

A `tf.function` keeps the graphs that it has traced, by the object that it belongs to. A
graph traced before a layer has been exchanged goes on computing with the old one, and a
graph traced inside of a wrapper's call would keep the masked values of that call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras


def current_graph() -> Any:
    """The graph that TensorFlow traces now; None in eager mode and elsewhere."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def compiled_functions(layer: Any) -> list[Any]:
    """The compiled functions among the methods and attributes of a layer tree."""
    found = []
    for inner in layer._flatten_layers():
        values = [v for cls in type(inner).__mro__ for v in vars(cls).values()]
        found += [v for v in (*values, *vars(inner).values()) if _is_compiled(v)]
    return list({id(function): function for function in found}.values())


@contextlib.contextmanager
def untraced(applies: bool = True) -> Iterator[None]:
    """Has compiled functions run as plain Python: nothing is traced or remembered.

    Args:
        applies: False leaves everything as it is.
    """
    backend = keras.backend.backend()
    if not applies or backend not in ("tensorflow", "jax"):
        yield
    elif backend == "jax":
        import jax

        with jax.disable_jit():
            yield
    else:
        import tensorflow as tf

        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(before)


def forget_traces(model: Any) -> None:
    """Has the `tf.function`s of a model trace anew what they are called for next.

    Raises:
        ValueError: if one is held that cannot forget.
    """
    layers = list(model._flatten_layers())
    for layer in layers:
        for name, value in vars(layer).items():
            # A method that the constructor has compiled for this very object.
            if hasattr(value, "get_concrete_function") and hasattr(value, "_clone"):
                vars(layer)[name] = value._clone(value.python_function)
    for function in compiled_functions(model):
        remembered = getattr(function, "_descriptor_cache", None)
        for layer in layers:
            if remembered is not None:
                # TensorFlow has no public way to drop what it has traced for an object.
                remembered.pop(layer, None)


def _is_compiled(value: Any) -> bool:
    """A function compiled by TensorFlow or JAX."""
    return callable(value) and (
        hasattr(value, "get_concrete_function")
        or type(value).__name__ == "PjitFunction"
    )
