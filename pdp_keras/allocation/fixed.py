"""Allocations that look at shapes only: uniform, and Erdos-Renyi-Kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pdp_keras.allocation.base import WeightInfo, count_zeros


def uniform(weights: Sequence[WeightInfo], sparsity: float) -> list[int]:
    """The same sparsity everywhere."""
    return [count_zeros(sparsity, w.values.size) for w in weights]


def erk(weights: Sequence[WeightInfo], sparsity: float) -> list[int]:
    """Erdos-Renyi-Kernel: density in proportion to (fan_in + fan_out + k) / size.

    Layers whose density would pass 1 stay dense, and the rest is scaled again
    (Evci et al., RigL, ICML 2020, arXiv:1911.11134, section 3.1).
    """
    sizes = np.array([w.values.size for w in weights], dtype="float64")
    raw = np.array([_erk_density(w) for w in weights])
    kept_in_all = sizes.sum() - count_zeros(sparsity, int(sizes.sum()))
    dense = np.zeros(len(weights), dtype=bool)
    densities = np.ones(len(weights))
    while not dense.all():
        rest = kept_in_all - sizes[dense].sum()
        scale = rest / (raw * sizes)[~dense].sum()
        densities = np.where(dense, 1.0, scale * raw)
        if densities.max() <= 1:
            break
        dense |= densities >= densities.max()
    return [
        min(w.values.size, max(0, count_zeros(1 - density, w.values.size)))
        for w, density in zip(weights, densities, strict=True)
    ]


def _erk_density(weight: WeightInfo) -> float:
    dimensions = (weight.fan_in, weight.fan_out, *weight.spatial)
    return sum(dimensions) / math.prod(dimensions)
