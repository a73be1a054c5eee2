"""Masked values that are made once and used by many calls."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras

# By the id of a wrapper or a channel group: what it computes with at inference.
Held = dict[int, Any]

_held: contextvars.ContextVar[tuple[Held, Any] | None] = contextvars.ContextVar(
    "held", default=None
)


@contextlib.contextmanager
def holding(values: Held) -> Iterator[None]:
    """Within it, wrappers and groups compute with these values at inference."""
    token = _held.set((values, _graph()))
    try:
        yield
    finally:
        _held.reset(token)


def held_value(owner: Any) -> Any:
    """What is held for a wrapper or group; None if it must make its own.

    A graph that is traced within another may outlive the values, so it makes its own.
    """
    held = _held.get()
    if held is None:
        return None
    values, graph = held
    return values.get(id(owner)) if graph is _graph() else None


def _graph() -> Any:
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
