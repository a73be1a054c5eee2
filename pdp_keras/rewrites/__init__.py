"""Exact rewrites of a Keras graph, into the form that a device's kernels take."""

from pdp_keras.rewrites.xnnpack import (
    Rewritten,
    fix_sizes,
    rewrite_for_xnnpack,
    turned_batch,
)

__all__ = [
    "Rewritten",
    "fix_sizes",
    "rewrite_for_xnnpack",
    "turned_batch",
]
