"""What the package computes, written again in NumPy to be obviously right.

Everything sorts, loops and uses float64: slow, and with nothing in common with the
code under test but the definitions.
"""

import numpy as np


def order_statistics(magnitudes, rank):
    """The values of rank `rank - 1` and `rank` in rising order, clipped to exist."""
    ordered = np.sort(np.ravel(magnitudes))
    last = ordered.size - 1
    return ordered[min(max(rank - 1, 0), last)], ordered[min(max(rank, 0), last)]


def threshold(magnitudes, zeros):
    """Midway between the largest pruned and the smallest kept magnitude."""
    if zeros == 0:
        return 0.0
    lower, upper = order_statistics(magnitudes, zeros)
    return (np.float64(lower) + np.float64(upper)) / 2


def smallest(magnitudes, zeros):
    """True for exactly `zeros` entries; of equal ones the first go first."""
    pruned = np.zeros(np.size(magnitudes), dtype=bool)
    pruned[np.argsort(np.ravel(magnitudes), kind="stable")[:zeros]] = True
    return pruned.reshape(np.shape(magnitudes))


def sigmoid(x):
    """In the form that does not overflow for the sign of x."""
    x = np.asarray(x, dtype="float64")
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def soft_mask(weights, threshold, width):
    """sigmoid((w**2 - t**2) / width**2)."""
    w, t, width = np.float64(weights), np.float64(threshold), np.float64(width)
    if t == 0:
        return np.ones_like(w)
    return sigmoid((w**2 - t**2) / width**2)


def soft_masked_slope(weights, threshold, width):
    """d(m w)/dw = m + 2 w**2 / width**2 * m (1 - m)."""
    w, width = np.float64(weights), np.float64(width)
    if threshold == 0:
        return np.ones_like(w)
    m = soft_mask(w, threshold, width)
    return m + 2 * w**2 / width**2 * m * (1 - m)


def global_counts(tensors, sparsity, max_sparsity):
    """Zeros of each tensor in one ranking of all magnitudes.

    Takes one weight after the other, smallest first and in order of position, and
    passes over the tensors that have given all they may. Only for tensors whose
    floors leave enough to take.
    """
    total = round(sparsity * sum(t.size for t in tensors))
    limits = [int(max_sparsity * t.size + 1e-9) for t in tensors]
    assert sum(limits) >= total, "the floors leave too little"
    ranking = sorted(
        (abs(value), tensor, position)
        for tensor, values in enumerate(tensors)
        for position, value in enumerate(np.ravel(values).tolist())
    )
    counts = [0] * len(tensors)
    for _, tensor, _ in ranking:
        if sum(counts) == total:
            break
        if counts[tensor] < limits[tensor]:
            counts[tensor] += 1
    return counts


def erk_densities(shapes, sparsity):
    """Densities in proportion to sum(axes) / prod(axes), none above 1.

    Solves for the factor by bisection instead of setting layers aside: the number
    of kept weights rises with it.
    """
    sizes = np.array([np.prod(shape) for shape in shapes], dtype="float64")
    raw = np.array([np.sum(shape) / np.prod(shape) for shape in shapes])
    kept = sizes.sum() - round(sparsity * sizes.sum())
    low, high = 0.0, 1 / raw.min()
    for _ in range(200):
        middle = (low + high) / 2
        if (np.minimum(1, middle * raw) * sizes).sum() < kept:
            low = middle
        else:
            high = middle
    return np.minimum(1, high * raw)
