"""Which layers of a copy train: those that train in the original."""

from __future__ import annotations

from typing import Any

from pdp_keras.models.kernels import child_layers


def copy_trainable(old: Any, new: Any) -> None:
    """Freezes in a copy what is frozen in the original, at any depth.

    A config tells it of the outermost layer alone.

    Args:
        old: a layer, maybe in a wrapper of ours.
        new: a built layer of the same structure, maybe in a wrapper of ours.
    """
    old, new = _inside(old), _inside(new)
    if old.trainable != new.trainable:
        new.trainable = old.trainable  # of all that is in it, too
    for inner, copy in zip(child_layers(old), child_layers(new), strict=False):
        copy_trainable(inner, copy)


def _inside(layer: Any) -> Any:
    is_ours = getattr(type(layer), "name_is_of_layer", False)
    return layer.layer if is_ours else layer
