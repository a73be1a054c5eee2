"""What every pruning method answers, as one interface.

A method says how the weights that a layer computes with are made from its own, what
their gradient is, and what is updated when. How many weights are pruned when follows
from a schedule; which are pruned together, from a mode.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from pdp_keras.configs import require_rules
from pdp_keras.scheduling import RAMPS, Moment

Tensor = Any


class Weight(Protocol):
    """What a method sees of a pruned kernel; see `PrunedWeight`.

    Attributes:
        zeros: integer variable: how many weights are pruned now.
        extras: the variables that the method keeps beside the kernel, by name.
    """

    zeros: Any
    extras: dict[str, Any]

    @property
    def variable(self) -> Any:
        """The Keras variable with the weights."""

    @property
    def mode(self) -> Any:
        """What is pruned together."""

    def soft_masking(self) -> Callable[[Tensor], Tensor]:
        """What masks float32 weights by PDP."""

    def cut_smallest(self, training: bool = True) -> Tensor:
        """The weights with the `zeros` smallest (by its mode) set to 0."""

    def track_threshold(self) -> None:
        """Notes where the threshold is, so that the next cut finds it sooner."""


class Group(Protocol):
    """What a method sees of channels that are pruned together; see `ChannelGroup`.

    Attributes:
        units: how many there are; of each the method has a score and a mask.
        zeros: integer variable: how many are pruned now.
        target_zeros: integer variable: how many are in the end.
        temperature_scale: float variable: what a temperature has fallen to.
        extras: the variables that the method keeps beside the group, by name.
        makers: the kernels that make the channels.
        readers: the kernels that sum over them.
        gates: the normalizations that may shut them, if the method `needs_gates`.
        seed_generator: for what the method draws, if it does.
    """

    label: str
    units: int
    zeros: Any
    target_zeros: Any
    temperature_scale: Any
    extras: dict[str, Any]
    seed_generator: Any

    @property
    def makers(self) -> Sequence[Any]:
        """In the order of their names."""

    @property
    def readers(self) -> Sequence[Any]:
        """In the order of their names."""

    @property
    def gates(self) -> Sequence[Any]:
        """In the order of their names."""

    def norms(self) -> Tensor:
        """The relative norm of each unit's weights, `(units,)`."""

    def soft_mask(self) -> Tensor:
        """The mask of PDP, `(units,)`."""

    def hard_mask(self) -> Tensor:
        """0 for the `zeros` units with the smallest scores and 1 for the others."""


@dataclasses.dataclass(frozen=True)
class Extra:
    """A variable that a method keeps beside a kernel, or a group of channels.

    Attributes:
        shape: None for the kernel's own, or for one number for each unit of a group.
        dtype: of the variable.
        initial: what it is filled with.
        trainable: whether the optimizer updates it.
        takes_gradient: whether the optimizer sets it to its gradient instead: for
            what a backward pass has to say to the next update.
    """

    shape: tuple[int, ...] | None = None
    dtype: str = "float32"
    initial: float = 0.0
    trainable: bool = False
    takes_gradient: bool = False


class Method(abc.ABC):
    """Base class: a small immutable object; state is in variables of the wrapper.

    Subclasses are frozen dataclasses: their arguments are their config.

    Raises:
        ValueError: for an argument that breaks its rule.
    """

    name: ClassVar[str]
    # The modes whose units it can prune.
    modes: ClassVar[tuple[str, ...]] = ("unstructured",)
    # The shape of its ramp, a key of `RAMPS`, where the user gives none.
    ramp: ClassVar[str] = "cubic"
    # Whether a new step must be able to change something (or else every epoch).
    goes_by_step: ClassVar[bool] = True
    # Whether its sparsity may fall, or falls only by mistake.
    may_fall: ClassVar[bool] = False
    # Whether a global ranking is made anew at every update of the mask.
    reallocates: ClassVar[bool] = False
    # Whether it counts its zeros itself on the way, and not the schedule.
    sets_zeros: ClassVar[bool] = False
    # Whether its own loss decides on the sparsity, also in the end; such a method
    # `count`s what training has made of it.
    learns_sparsity: ClassVar[bool] = False
    # Whether its mask is PDP's, with a temperature.
    is_soft: ClassVar[bool] = False
    # What the gradient of that mask is bounded by; None for nothing.
    max_gain: float | None = None
    # Its temperature where the user gives none; None leaves that to the mode.
    default_temperature: ClassVar[Any] = None
    # The fraction of the temperature that is left in the end.
    final_temperature: ClassVar[float] = 0.01
    # Of channels: whether it must know the BatchNormalizations in front of ReLUs,
    needs_gates: ClassVar[bool] = False
    # whether it draws random numbers beside a group,
    draws: ClassVar[bool] = False
    # and whether its extra `gradient` takes the squared norm of the gradient of all
    # weights that read a unit.
    notes_gradients: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_rules(self)

    def extras(self) -> dict[str, Extra]:
        """The variables that it keeps beside each kernel (or group), by name."""
        return {}

    def default_allocation(self, mode: Any) -> str:
        """How sparsity is shared out where the user leaves it open."""
        del mode
        return "global"

    def default_fall(self, mode: Any) -> tuple[float, float]:
        """When the temperature falls where the user leaves it open.

        The mask is all but hard when the ramp ends, and what is left of the run trains
        what is kept.

        Returns:
            Begin and end, in ramps from the ramp's beginning.
        """
        del mode
        return 0.5, 1.0

    @abc.abstractmethod
    def masked(self, weight: Weight) -> Tensor:
        """What a layer computes with in training: float32, with its gradient."""

    @abc.abstractmethod
    def hard_masked(self, weight: Weight) -> Tensor:
        """What it computes with at inference, and what stripping leaves."""

    def channel_scores(self, group: Group) -> Tensor:
        """What the hard mask of channels ranks, `(units,)`, none negative."""
        return group.norms()

    def channel_mask(self, group: Group) -> Tensor:
        """The mask of channels in training, `(units,)`; at inference it is hard."""
        return group.soft_mask() if self.is_soft else group.hard_mask()

    def start_call(self, group: Group) -> Tensor | None:
        """What comes first in a training step, at the group's first gate.

        Returns:
            A loss to add, or None.
        """
        del group
        return None

    def fraction(self, moment: Moment, shape: str | None = None) -> float:
        """The fraction of the target sparsity that holds at a moment."""
        return RAMPS[shape or self.ramp](moment.ramp(moment.done))

    def is_due(self, moment: Moment) -> bool:
        """Whether the mask may change at this moment."""
        del moment
        return True

    def rankings(self, weights: Sequence[Any]) -> list[np.ndarray]:
        """What a global allocation ranks: an array for each weight, its least first."""
        return [weight.describe().values for weight in weights]

    def update(
        self, weights: Sequence[Any], moment: Moment, optimizer: Any = None
    ) -> None:
        """Changes masks, after the schedule has set the `zeros` of all weights."""
        del weights, moment, optimizer

    def count(self, weights: Sequence[Any]) -> None:
        """Sets `zeros` to what is pruned now, where the sparsity is learned."""
        del weights
