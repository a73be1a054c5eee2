"""Exact rewrites of a Keras graph, into the form that a device's kernels take."""

from pdp_keras.rewrites.factors import fold_factors
from pdp_keras.rewrites.head import pool_to_vectors
from pdp_keras.rewrites.normalization import fold_normalization
from pdp_keras.rewrites.padding import pad_symmetrically
from pdp_keras.rewrites.preprocessing import Split, split_preprocessing
from pdp_keras.rewrites.turn import half_turn
from pdp_keras.rewrites.xnnpack import (
    Rewritten,
    fix_sizes,
    rewrite_for_xnnpack,
    turned_batch,
)

__all__ = [
    "Rewritten",
    "Split",
    "fix_sizes",
    "fold_factors",
    "fold_normalization",
    "half_turn",
    "pad_symmetrically",
    "pool_to_vectors",
    "rewrite_for_xnnpack",
    "split_preprocessing",
    "turned_batch",
]
