"""`strip_pruning`: from a pruned model back to a plain Keras model."""

from __future__ import annotations

import warnings
from typing import Any

from pdp_keras.masks import require_finite
from pdp_keras.pruned import Pruned, current_sparsity, plain_copy, require_pruned


def strip_pruning(model: Any) -> Any:
    """A plain Keras model with exact zeros, of the original classes.

    It predicts what the pruned model predicts at inference, bit for bit, has no
    trace of this package, and loads where it is not installed.

    Args:
        model: a model with `PDPWrapper` layers. It is not changed (but for one
            pruned with `inplace=True`: that very object is stripped).

    Returns:
        A new model, not compiled.

    Raises:
        ValueError: if the model has no `PDPWrapper`, or its weights are not finite.

    Warns:
        UserWarning: if a weight has not reached its target sparsity, because the
            callback was forgotten or training stopped early.

    Example:

    >>> small = pdp_keras.strip_pruning(model)
    >>> small.save("small.keras")
    """
    parts = require_pruned(model)
    require_finite(pair for part in parts for pair in part.values())
    _warn_below_target(parts)
    return plain_copy(model)


def _warn_below_target(parts: list[Pruned]) -> None:
    below = [part for part in parts if part.is_below_target]
    kind = parts[0].kind
    if below:
        warnings.warn(
            f"{len(below)} of {len(parts)} {kind} are stripped before they "
            "have reached their target sparsity (sparsity of the pruned "
            f"{kind}: {current_sparsity(parts):.2%}): {_advice(parts)}.",
            stacklevel=3,
        )


def _advice(parts: list[Pruned]) -> str:
    method = parts[0].method
    if method.learns_sparsity:
        return (
            f"with method={method.name!r} it follows from {method!r}, not from a ramp"
        )
    return (
        "train with PDPScheduleCallback until its ramp has ended; if EarlyStopping or "
        "ModelCheckpoint has put back an earlier epoch, wrap it in pdp_keras.AtTarget"
    )
