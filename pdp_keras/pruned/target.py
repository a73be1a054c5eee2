"""Which layers to prune for a device, and whether that will make it faster."""

from __future__ import annotations

import warnings
from typing import Any

from pdp_keras.models import compile_filters, find_kernels
from pdp_keras.modes import Channel, Mode
from pdp_keras.targets import deploy_check


def choose_for_target(
    target: str, model: Any, mode: Mode, sparsity: float, filters: Any
) -> Any:
    """The filters for `prune_model`: the layers whose zeros pay on a target.

    Args:
        target: a key of `targets.TARGETS`.
        model: the model to prune.
        mode: what is pruned together. Channels pay everywhere and need no choice.
        sparsity: the fraction of zeros aimed at.
        filters: the user's own, or None.

    Raises:
        ValueError: if no layer could skip its zeros, or there would be too few.

    Warns:
        UserWarning: if `filters` chooses layers whose zeros will not be skipped.
    """
    check = deploy_check(model, target)
    if isinstance(mode, Channel) or target == "generic":
        return filters
    if not check.prunable:
        raise ValueError(
            f"A layer of the model must be able to skip its zeros on {target!r}; "
            'prune its channels with mode="channel", which is faster on every device, '
            "or leave `target` out. "
            f"Received: model={model.name!r}, of which {check.summary}"
        )
    if sparsity <= check.needed:
        raise ValueError(
            f"The sparsity must be above {check.needed:.4f} for target {target!r}: "
            "below, everything runs dense and nothing is faster. "
            f"Received: sparsity={sparsity:g} with mode={mode}"
        )
    prunable = {path.rpartition("/")[-1] for path in check.prunable}
    if filters is None:
        return lambda layer: layer.name in prunable
    chosen = compile_filters(filters)
    others = [
        kernel.path
        for kernel in find_kernels(model)[0]
        if chosen(kernel) and kernel.owner.name not in prunable
    ]
    if others:
        warnings.warn(
            f"The zeros of {len(others)} of the layers chosen by `filters` are not "
            f"skipped on {target!r}: {others[:5]}. See `pdp_keras.deploy_check`.",
            stacklevel=3,
        )
    return filters
