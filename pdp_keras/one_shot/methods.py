"""Which weights of one product go after training, and what the others become.

All work on `(inputs, outputs)` matrices in float64. `gram` is the sum of `x.T @ x` over
all rows of the calibration data, `(inputs, inputs)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Columns that SparseGPT updates together (its paper's blocksize).
BLOCK = 128


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is pruned of a matrix.

    Attributes:
        sparsity: fraction of zeros, without N:M.
        nm: n and m, or None.
        run: groups of m inputs do not go beyond so many.
        damping: SparseGPT adds so much of the mean of `gram`'s diagonal to it.
    """

    sparsity: float
    nm: tuple[int, int] | None
    run: int
    damping: float


def magnitude(weights: Array, gram: Array | None, wanted: Wanted) -> Array:
    """The smallest weights go; of a whole matrix, or of each group of N:M."""
    del gram
    return weights * _kept(np.abs(weights), wanted)


def wanda(weights: Array, gram: Array, wanted: Wanted) -> Array:
    """The smallest `|w| * ||x||` go, for each output by itself.

    Sun et al., A simple and effective pruning approach for large language models,
    arXiv:2306.11695, equation 1.
    """
    scores = np.abs(weights) * np.sqrt(np.diag(gram))[:, None]
    if wanted.nm is not None:
        return weights * _kept(scores, wanted)
    kept = [_kept(column[:, None], wanted) for column in scores.T]
    return weights * np.concatenate(kept, axis=1)


def sparsegpt(weights: Array, gram: Array, wanted: Wanted) -> Array:
    """Weights go where that costs least, and those that come later make up for it.

    Frantar and Alistarh, SparseGPT: massive language models can be accurately pruned
    in one-shot, arXiv:2301.00774, algorithm 1. An input that is always 0 costs
    nothing.
    """
    weights = weights.copy()
    factor = _factor(gram, wanted.damping)
    inputs, outputs = weights.shape
    ends = dict(_groups(inputs, wanted))
    wanted_zeros = round(wanted.sparsity * weights.size)
    done = 0
    for start, stop in _blocks(inputs, wanted):
        block, inner = weights[start:stop], factor[start:stop, start:stop]
        scale = np.diag(inner)[:, None]
        if wanted.nm is None:
            # As many in each block: in the end they are exactly those wanted.
            zeros = wanted_zeros * stop // inputs - done
            kept = _largest((block / scale) ** 2, (stop - start) * outputs - zeros)
            done += zeros
        else:
            kept = np.ones_like(block, dtype=bool)
        errors = np.zeros_like(block)
        for i in range(stop - start):
            if wanted.nm is not None and start + i in ends:
                end = ends[start + i] - start
                part = (block[i:end] / scale[i:end]) ** 2
                kept[i:end] = _best(part, wanted.nm[0])
            pruned = block[i] * kept[i]
            errors[i] = (block[i] - pruned) / inner[i, i]
            block[i] = pruned
            block[i + 1 :] -= np.outer(inner[i, i + 1 :], errors[i])
        weights[stop:] -= factor[start:stop, stop:].T @ errors
    return weights


METHODS: dict[str, Callable[[Array, Any, Wanted], Array]] = {
    "sparsegpt": sparsegpt,
    "wanda": wanda,
    "magnitude": magnitude,
}


def _factor(gram: Array, damping: float) -> Array:
    """The upper triangular `u` with `u.T @ u` the inverse of the damped `gram`."""
    diagonal = np.diag(gram)
    mean = diagonal.mean()
    # Zeros alone say nothing: any number will do.
    damped = gram + np.diag(np.full(len(gram), damping * mean if mean > 0 else 1.0))
    damped[np.diag_indices_from(damped)] += np.where(diagonal == 0, mean, 0)
    inverse = np.linalg.inv(damped)
    upper: Array = np.linalg.cholesky((inverse + inverse.T) / 2).T
    return upper


def _groups(inputs: int, wanted: Wanted) -> Iterator[tuple[int, int]]:
    """Where the groups of N:M begin and end; there are none without it."""
    if wanted.nm is None:
        return
    for run in range(0, inputs, wanted.run):
        for start in range(run, run + wanted.run, wanted.nm[1]):
            yield start, min(start + wanted.nm[1], run + wanted.run)


def _blocks(inputs: int, wanted: Wanted) -> Iterator[tuple[int, int]]:
    """Parts of about BLOCK inputs that no group of N:M lies across."""
    ends = [end for _, end in _groups(inputs, wanted)]
    start = 0
    for end in ends or [*range(BLOCK, inputs, BLOCK), inputs]:
        if end - start >= BLOCK or end == inputs:
            yield start, end
            start = end


def _kept(scores: Array, wanted: Wanted) -> Array:
    if wanted.nm is None:
        return _largest(scores, scores.size - round(wanted.sparsity * scores.size))
    kept = np.ones(scores.shape, dtype=bool)
    for start, end in _groups(len(scores), wanted):
        kept[start:end] = _best(scores[start:end], wanted.nm[0])
    return kept


def _largest(scores: Array, count: int) -> Array:
    """True for so many of the largest of all; of equal ones the later stay."""
    kept = np.zeros(scores.size, dtype=bool)
    order = np.argsort(scores, axis=None, kind="stable")
    kept[order[scores.size - count :]] = True
    return kept.reshape(scores.shape)


def _best(scores: Array, n: int) -> Array:
    """True for the n largest in each column."""
    order = np.argsort(scores, axis=0, kind="stable")
    kept = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(kept, order[max(0, len(scores) - n) :], True, axis=0)
    return kept
