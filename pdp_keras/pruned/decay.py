"""Keeps an optimizer's weight decay from what a method learns beside the weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def spare_from_decay(optimizer: Any, variables: Iterable[Any]) -> None:
    """Excludes variables from an optimizer's decoupled weight decay.

    A score or a threshold is no weight: pulled towards 0 it changes the sparsity.

    Args:
        optimizer: a Keras optimizer, built or not; or None.
        variables: those to exclude, beside what the user has excluded.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not getattr(optimizer, "weight_decay", None):
        return
    # `exclude_from_weight_decay` refuses an optimizer that `fit` has built by now, and
    # would forget what the user has excluded with it.
    excluded = {optimizer._var_key(variable) for variable in variables}
    given = getattr(optimizer, "_exclude_from_weight_decay", ())
    optimizer._exclude_from_weight_decay = {*given, *excluded}
    optimizer._exclude_from_weight_decay_cache = {}
