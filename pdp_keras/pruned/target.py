"""Which layers to prune for a device, and whether that will make it faster."""

from __future__ import annotations

import warnings
from typing import Any

from pdp_keras import targets
from pdp_keras.models import compile_filters, find_kernels
from pdp_keras.modes import Block, Channel, Mode
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
        ValueError: if no layer could skip its zeros, there would be too few, or zeros
            in blocks would be skipped by slow kernels.

    Warns:
        UserWarning: if `filters` chooses layers whose zeros will not be skipped.
    """
    if isinstance(mode, Block):
        _check_blocks(target, mode)
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


def _check_blocks(target: str, mode: Block) -> None:
    """Without fast kernels a model with blocks of zeros is slower than a dense one."""
    fast = targets.get(target).blocks
    if fast is None or any(mode.outputs % size == 0 for size in fast):
        return
    known = f"multiples of {list(fast)} outputs" if fast else "none"
    raise ValueError(
        "Zeros in blocks must have fast kernels on all devices of target "
        f"{target!r}: there are {known}. (A browser skips zeros in blocks more slowly "
        'than it computes with all weights.) Leave `mode` at "unstructured", or, for '
        f'64-bit Arm alone, say target="xnnpack-arm64". Received: mode={mode}'
    )
