"""`DCP`: channels that are added where the loss asks for them most."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from pdp_keras.masks import read, read_integer
from pdp_keras.methods.base import Extra, Group, Tensor
from pdp_keras.methods.channel_method import ChannelMethod
from pdp_keras.methods.stored_mask import smallest
from pdp_keras.scheduling import Moment


@dataclasses.dataclass(frozen=True)
class DCP(ChannelMethod):
    """Discrimination-aware channel pruning: a greedy choice of channels.

        choice:    of the channels that are left out, the one with the largest
                   ||dL/dW_k||_F comes next, W_k all weights that read channel k
        masks:     1 for the channels that are chosen, 0 for the others
        gradient:  the mask

    Group by group, from the inputs to the outputs, each in an equal part of the ramp:
    all channels of the group are left out but one; then they come back one after the
    other, with the weights that they had, while the network trains, until as many are
    there as the target asks for. Groups whose turn has not come are whole. After the
    ramp the choice stands, and training fine-tunes it. (Zhuang et al., NeurIPS 2018,
    arXiv:1810.11809, algorithm 2.)

    What differs from the paper:

    - L is the loss of the model. The auxiliary losses at three depths, the stages of
      fine-tuning with them, and the reconstruction error of each layer's outputs are
      left out: they call for more outputs, and for a second network, in `fit`.
    - The gradient is that of the last step, and not of many images; in training, and
      not with the statistics that inference uses.
    - Between two choices all weights train, and not those alone that read the group.
    - The first channel is the one with the largest gradient in the network before:
      a group cannot be empty.
    - How many channels each group keeps is up to the allocation, `"uniform"` in the
      paper; its adaptive stopping condition is left out.

    It wants a ramp with at least as many steps as channels are kept in all groups
    together, or several come at once; and a warm-up if the model is untrained.

    Example:

    >>> pruned = pdp_keras.prune_model(model, 0.5, mode="channel", method="dcp")
    """

    name = "dcp"
    ramp = "linear"
    # To the schedule's targets; on the way their number rises and falls.
    sets_zeros = True
    notes_gradients = True

    def extras(self) -> dict[str, Extra]:
        """What is chosen, and the squared norms of the last step's gradients."""
        return {
            "chosen": Extra(initial=1.0),
            "gradient": Extra(trainable=True, takes_gradient=True),
        }

    def channel_scores(self, group: Group) -> Tensor:
        """1 for a channel that is chosen and 0 for another one."""
        return group.extras["chosen"].value

    def is_due(self, moment: Moment) -> bool:
        """In every step of the ramp, and an epoch more: steps may be passed over."""
        return moment.ramp(moment.done) > 0 and moment.ramp(moment.done - 1) < 1

    def update(
        self, weights: Sequence[Any], moment: Moment, optimizer: Any = None
    ) -> None:
        """Adds channels to the groups whose turn has come."""
        del optimizer
        groups = sorted(weights, key=lambda group: min(m.order for m in group.makers))
        position = moment.ramp(moment.done) * len(groups)
        for index, group in enumerate(groups):
            if position > index:
                choose(group, min(1.0, position - index))


def choose(group: Group, part: float) -> None:
    """Adds the channels that are due when this part of the group's turn is over."""
    zeros, target = read_integer(group.zeros), read_integer(group.target_zeros)
    # Nothing is left out before the group's turn, and too much in it.
    before = group.units - zeros if zeros else 0
    count = max(1, int(part * (group.units - target) + 1e-9)) - before
    if zeros == target or count <= 0:
        return
    gradient = read(group.extras["gradient"])
    if part < 1 and not gradient.any():
        return  # no step has been trained yet
    chosen = (read(group.extras["chosen"]) > 0) & (zeros > 0)
    chosen |= smallest(np.where(chosen, np.inf, -gradient), count)
    group.extras["chosen"].assign(chosen.astype("float32"))
    group.zeros.assign(int((~chosen).sum()))
