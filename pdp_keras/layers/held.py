"""Masked values that are made once and used by many calls."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from typing import Any

from pdp_keras.layers.stacks import masked_at_once
from pdp_keras.models import current_graph

# By the id of a channel group its mask; by that of a wrapper its masked variables, each
# with its value.
Held = dict[int, Any]

_held: contextvars.ContextVar[tuple[Held, Any] | None] = contextvars.ContextVar(
    "held", default=None
)


@contextlib.contextmanager
def holding(values: Held) -> Iterator[None]:
    """Within it, wrappers and groups compute with these values at inference."""
    token = _held.set((values, current_graph()))
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
    return values.get(id(owner)) if graph is current_graph() else None


def hard_values(wrappers: Sequence[Any]) -> Held:
    """What the wrappers of a model, and their groups, compute with at inference."""
    groups = {id(group): group for wrapper in wrappers for group in wrapper.groups}
    masks = {key: group.hard_mask() for key, group in groups.items()}
    weights = [weight for wrapper in wrappers for weight in wrapper.pruned_weights]
    with holding(masks), masked_at_once(weights):
        pairs = {id(x): x.masked_values(training=False) for x in wrappers}
    return {**masks, **pairs}
