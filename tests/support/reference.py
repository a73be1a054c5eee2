"""What the package computes, written again in NumPy to be obviously right.

Everything sorts, loops and uses float64 or fractions: slow, and with nothing in common
with the code under test but the definitions.
"""

from fractions import Fraction

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
    safe = np.where(t > 0, width, 1.0)
    return np.where(t > 0, sigmoid((w**2 - t**2) / safe**2), 1.0)


def soft_masked_slope(weights, threshold, width):
    """d(m w)/dw = m + 2 w**2 / width**2 * m (1 - m)."""
    w, t, width = np.float64(weights), np.float64(threshold), np.float64(width)
    m = soft_mask(w, t, width)
    safe = np.where(t > 0, width, 1.0)
    return np.where(t > 0, m + 2 * w**2 / safe**2 * m * (1 - m), 1.0)


def input_groups(shape, input_axes, m):
    """The groups of N:M: lists of indices of up to m consecutive inputs of one output.

    Several input axes count as one, the last of them running fastest.
    """
    inputs = list(np.ndindex(*(shape[axis] for axis in sorted(input_axes))))
    others = [axis for axis in range(len(shape)) if axis not in input_axes]
    groups = []
    for other in np.ndindex(*(shape[axis] for axis in others)):
        for start in range(0, len(inputs), m):
            group = []
            for place in inputs[start : start + m]:
                index = dict(zip(others, other, strict=True))
                index |= dict(zip(sorted(input_axes), place, strict=True))
                group.append(tuple(index[axis] for axis in range(len(shape))))
            groups.append(group)
    return groups


def group_losers(magnitudes, input_axes, n, m):
    """True for all but the n largest of each group; of equal ones the first go."""
    losers = np.zeros(np.shape(magnitudes), dtype=bool)
    for group in input_groups(losers.shape, input_axes, m):
        rising = sorted(group, key=lambda index: (magnitudes[index], index))
        for index in rising[: max(0, len(group) - n)]:
            losers[index] = True
    return losers


def pruned_losers(magnitudes, input_axes, n, m, zeros):
    """True for the `zeros` smallest losers, in no order but size and group."""
    losers = group_losers(magnitudes, input_axes, n, m)
    ranking = sorted(
        (magnitudes[index], position, index)
        for position, index in enumerate(
            index
            for index in _in_order_of_places(losers.shape, input_axes)
            if losers[index]
        )
    )
    pruned = np.zeros(losers.shape, dtype=bool)
    for _, _, index in ranking[:zeros]:
        pruned[index] = True
    return pruned


def _in_order_of_places(shape, input_axes):
    """All indices, input axes that lie apart brought together at the first one."""
    first = min(input_axes)
    others = [axis for axis in range(len(shape)) if axis not in input_axes]
    order = [axis for axis in others if axis < first]
    order += sorted(input_axes)
    order += [axis for axis in others if axis > first]
    for place in np.ndindex(*(shape[axis] for axis in order)):
        index = dict(zip(order, place, strict=True))
        yield tuple(index[axis] for axis in range(len(shape)))


def group_thresholds(magnitudes, input_axes, n, m, zeros):
    """Each weight's threshold: its group's midpoint, times the fraction pruned."""
    found = np.zeros(np.shape(magnitudes))
    most = group_losers(magnitudes, input_axes, n, m).sum()
    for group in input_groups(found.shape, input_axes, m):
        if len(group) <= n:
            continue
        falling = sorted((np.float64(magnitudes[i]) for i in group), reverse=True)
        for index in group:
            found[index] = (falling[n - 1] + falling[n]) / 2 * min(1, zeros / most)
    return found


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


def lamp_scores(values):
    """Each square over the sum of the squares from its own place in the order on.

    The order is that of rising magnitudes, and of equal ones that of positions. In
    fractions, which neither round nor overflow, until the last.
    """
    squares = [Fraction(float(value)) ** 2 for value in np.ravel(values)]
    order = sorted(range(len(squares)), key=lambda index: (squares[index], index))
    scores = np.zeros(len(squares))
    for place, index in enumerate(order):
        rest = sum(squares[other] for other in order[place:])
        scores[index] = squares[index] / rest if rest else 0
    return scores


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


def channel_scores(makers, units, norm):
    """The relative norm of each unit: over kernels `(values, axis, unit_of)`."""
    total = np.zeros(units)
    for values, axis, unit_of in makers:
        unit_of = range(units) if unit_of is None else unit_of
        norms = np.zeros(units)
        for place, unit in enumerate(unit_of):
            if unit >= 0:
                weights = np.take(np.float64(values), place, axis)
                power = 2 if norm == "l2" else 1
                norms[unit] += (np.abs(weights) ** power).sum()
        total += norms / (norms.mean() or 1)
    total /= len(makers)
    return np.sqrt(total) if norm == "l2" else total


def blocks(shape, input_axes, output_axes, inputs, outputs):
    """The blocks of a kernel: lists of indices, in order of position, input, output.

    Along each axis whole blocks come first, then the places that are left over.
    """
    inside, across = (
        list(np.ndindex(*(shape[axis] for axis in sorted(axes))))
        for axes in (input_axes, output_axes)
    )
    others = [a for a in range(len(shape)) if a not in (*input_axes, *output_axes)]
    found = []
    for other in np.ndindex(*(shape[axis] for axis in others)):
        for rows in _whole_then_single(inside, inputs):
            for columns in _whole_then_single(across, outputs):
                block = []
                for row in rows:
                    for column in columns:
                        index = dict(zip(others, other, strict=True))
                        index |= dict(zip(sorted(input_axes), row, strict=True))
                        index |= dict(zip(sorted(output_axes), column, strict=True))
                        block.append(tuple(index[a] for a in range(len(shape))))
                found.append(block)
    return found


def _whole_then_single(places, size):
    whole = len(places) // size * size
    cut = [places[i : i + size] for i in range(0, whole, size)]
    return cut + [[place] for place in places[whole:]]


def block_norms(weights, found):
    """The root mean square of each block."""
    w = np.float64(weights)
    return np.array([np.sqrt(np.mean([w[i] ** 2 for i in block])) for block in found])


def spread_over_blocks(values, found, shape):
    """An array with the value of each block at all of its places."""
    out = np.zeros(shape, np.asarray(values).dtype)
    for value, block in zip(values, found, strict=True):
        for index in block:
            out[index] = value
    return out


def block_jacobian(weights, threshold, width):
    """d(m(s) w)/dw of one block, by the product rule: `(n, n)`."""
    w = np.float64(weights)
    s = np.sqrt(np.mean(w**2))
    m = soft_mask(s, threshold, width)
    if threshold == 0:
        return np.eye(len(w))
    slope_of_mask = m * (1 - m) / np.float64(width) ** 2 * 2 * w / len(w)
    return m * np.eye(len(w)) + np.outer(w, slope_of_mask)
