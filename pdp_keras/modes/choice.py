"""Which kernels of a model are pruned in a mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pdp_keras.models import Kernel, compile_filters
from pdp_keras.modes.base import Mode


def choose_kernels(kernels: Sequence[Kernel], filters: Any, mode: Mode) -> list[bool]:
    """Which kernels are pruned: those that the user chose and the mode can prune.

    Raises:
        ValueError: if there are none.
    """
    is_wanted = compile_filters(filters)
    wanted = [is_wanted(kernel) for kernel in kernels]
    reasons = [mode.reason_against(k.shape, k.axes) for k in kernels]
    chosen = [w and why is None for w, why in zip(wanted, reasons, strict=True)]
    if not any(chosen):
        whys = {why for w, why in zip(wanted, reasons, strict=True) if w and why}
        raise ValueError(
            "The mode must fit at least one of the chosen kernels. "
            f"Received: mode={mode} ({'; '.join(sorted(whys))})"
        )
    return chosen
