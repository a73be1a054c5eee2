"""The rules of the pruning methods, written again in NumPy to be obviously right.

As in `reference`: loops, sorts and float64, and nothing in common with the code under
test but the definitions.
"""

import math

import numpy as np
import reference


def cut(weights, zeros):
    """The weights with the smallest magnitudes set to 0."""
    return np.where(reference.smallest(np.abs(weights), zeros), 0, weights)


def cut_groups(weights, n, m):
    """The weights with all but the n largest of m inputs of an output set to 0."""
    return np.where(reference.group_losers(np.abs(weights), (0,), n, m), 0, weights)


def cubic(position):
    """Zhu and Gupta's ramp, from 0 to 1."""
    return 1 - (1 - position) ** 3


def soft_threshold(weights, p):
    """sign(w) max(0, |w| - sigmoid(p)), one weight after the other."""
    threshold = 1 / (1 + math.exp(-p))
    found = np.zeros(np.shape(weights))
    for place, weight in np.ndenumerate(np.float64(weights)):
        found[place] = math.copysign(max(0.0, abs(weight) - threshold), weight)
    return found


def soft_threshold_gradients(weights, p, upstream, decay):
    """Those of the weights and of p, from the two sides of the threshold."""
    threshold = 1 / (1 + math.exp(-p))
    slope = math.exp(-p) / (1 + math.exp(-p)) ** 2
    of_weights, of_p = np.zeros(np.shape(weights)), decay * p
    for place, weight in np.ndenumerate(np.float64(weights)):
        if abs(weight) > threshold:
            of_weights[place] = upstream[place]
            of_p -= upstream[place] * math.copysign(slope, weight)
    return of_weights, of_p


def exchanged(weights, mask, gradients, count):
    """Weights and mask after `count` smallest kept ones went and as many came.

    One after the other: first those that go, then those with the largest gradient
    among all that are not kept any more. Only what was not kept before starts at 0.
    """
    weights, before = np.array(weights, "float64"), np.array(mask, bool)
    mask = before.copy()
    kept = [place for place in np.ndindex(mask.shape) if mask[place]]
    for place in sorted(kept, key=lambda place: (abs(weights[place]), place))[:count]:
        mask[place] = False
    free = [place for place in np.ndindex(mask.shape) if not mask[place]]
    for place in sorted(free, key=lambda place: (-gradients[place], place))[:count]:
        mask[place] = True
        if not before[place]:
            weights[place] = 0
    return weights, mask


def compressed_epochs(epochs):
    """The epochs, from 0, that AC/DC trains compressed, for a multiple of 20.

    Of 100: five compressed at 10, 20, ..., 70, each followed by five dense ones, the
    last of them by ten, and from 85 on compressed.
    """
    part = epochs // 20
    found = set()
    for phase in range(1, 8):
        found |= set(range(2 * phase * part, (2 * phase + 1) * part))
    return found | set(range(17 * part, epochs))


def sigmoid_rate(done, epochs, steepness):
    """OptG's rate after `done` of `epochs`."""
    return 1 / (1 + math.exp(-steepness * (done / epochs - 0.5)))


def cosine(first, last, position):
    """From `first` to `last` along half a wave."""
    return last + (first - last) * (1 + math.cos(math.pi * position)) / 2


def pruned_further(weights, mask, zeros):
    """The mask with the smallest kept ones gone too, until `zeros` are."""
    kept = [place for place in np.ndindex(np.shape(mask)) if mask[place]]
    more = zeros - (np.size(mask) - len(kept))
    mask = np.array(mask, bool)
    for place in sorted(kept, key=lambda place: (abs(weights[place]), place))[:more]:
        mask[place] = False
    return mask
