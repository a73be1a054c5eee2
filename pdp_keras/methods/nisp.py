"""`NISP`: the importance of the outputs, carried back to every channel."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from pdp_keras.masks import read
from pdp_keras.methods.base import Extra, Group, Tensor
from pdp_keras.methods.channel_method import ChannelMethod
from pdp_keras.scheduling import Moment

# Sums over many layers would overflow.
_LARGE = 1e100


@dataclasses.dataclass(frozen=True)
class NISP(ChannelMethod):
    """Neuron importance score propagation: pruned once, then fine-tuned.

        importance:  s_in = |W|**T s_out  for every kernel W that reads the channels,
                     summed over its window and over all kernels
        masks:       at the end of warm-up the channels with the lowest s go, all at
                     once and for good
        gradient:    the mask

    Yu et al., CVPR 2018, arXiv:1711.05908, section 3. There the importance of the
    responses before the classifier comes from a feature ranking (Inf-FS) of their
    values; here what is not pruned, such as the outputs of the model, has importance 1.
    Layers that act on each channel alone (normalizations, activations, pooling,
    depthwise kernels) pass it on as it is. Channels that a residual sum ties together
    have the importance that reaches the first of them; those that no kernel reads, the
    norm of their weights.

    How many channels each group loses is up to the allocation, by ratios given
    beforehand in the paper: `allocation="uniform"` is one for all. The ramp is not
    used.

    Example:

    >>> pruned = pdp_keras.prune_model(model, 0.5, mode="channel", method="nisp")
    """

    name = "nisp"
    goes_by_step = False

    def extras(self) -> dict[str, Extra]:
        """The importance, 0 until it is known."""
        return {"importance": Extra()}

    def channel_scores(self, group: Group) -> Tensor:
        """The importance."""
        return group.extras["importance"].value

    def fraction(self, moment: Moment, shape: str | None = None) -> float:
        """1 once warm-up is over."""
        del shape
        return float(moment.ramp(moment.done) > 0)

    def update(
        self, weights: Sequence[Any], moment: Moment, optimizer: Any = None
    ) -> None:
        """Finds the importance at the end of warm-up, once."""
        del optimizer
        known = any(read(group.extras["importance"]).any() for group in weights)
        if known or not self.fraction(moment):
            return
        for group, values in zip(weights, propagate(weights), strict=True):
            if not group.readers:
                values = read(group.norms())
            group.extras["importance"].assign(values / (values.mean() or 1))


def propagate(groups: Sequence[Group]) -> list[np.ndarray]:
    """The importance of the units of each group, up to a factor common to all.

    Args:
        groups: all groups of a model. One without readers has importance 1.
    """
    found = {id(g): np.full(g.units, 0.0 if g.readers else 1.0) for g in groups}
    one = 1.0
    pairs = [(group, reader) for group in groups for reader in group.readers]
    # Backwards through the graph: all that reads what a kernel makes came before it.
    pairs.sort(key=lambda pair: (-pair[1].order, pair[1].path))
    for _, same in itertools.groupby(pairs, key=lambda pair: pair[1].path):
        first, *others = same
        weights = np.abs(read(first[1].variable).astype("float64"))
        weights = weights * _of_outputs(first[1], found, one)
        for group, reader in (first, *others):
            reached = weights.sum(tuple({*range(weights.ndim)} - {reader.axis}))
            places = reader.unit_of >= 0
            np.add.at(found[id(group)], reader.unit_of[places], reached[places])
        largest = max(values.max() for values in found.values())
        if largest > _LARGE:
            one /= largest
            for values in found.values():
                values /= largest
    return [found[id(group)] for group in groups]


def _of_outputs(reader: Any, found: dict[int, np.ndarray], one: float) -> Any:
    """The importance of what a kernel makes, to be broadcast against it."""
    if not reader.makes:
        return one
    shape = reader.variable.shape
    axis = reader.makes[0][1].axis
    values = np.full(shape[axis], one)
    for group, made in reader.makes:
        places = made.unit_of >= 0
        values[places] = found[id(group)][made.unit_of[places]]
    return values.reshape([-1 if i == axis else 1 for i in range(len(shape))])
