"""`Axis`: where the channels of groups lie along an axis of a layer's weight."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from pdp_keras.configs import (
    INTEGER,
    LIST,
    TEXT,
    argument,
    fill,
    integer,
    require_keys,
    require_rules,
    sequence_of,
    shown,
)

_PLACES = sequence_of(
    integer("an integer >= -1", lambda value: value >= -1), "a list of integers >= -1"
)


@dataclasses.dataclass(frozen=True)
class Axis:
    """Where the channels of groups lie along an axis of a layer's weight.

    Attributes:
        weight: attribute path of the weight, `"kernel"`; or `"#2"`, the third of
            `find_kernels(layer)`, and `"#2.bias"`, the bias beside it.
        axis: the axis; counted from the end if it is negative.
        groups: for every place the index into the wrapper's groups, -1 for none.
        units: for every place the unit of that group, -1 for none.

    Raises:
        ValueError: for anything of another type.
    """

    weight: str = argument(TEXT)
    axis: int = argument(INTEGER)
    groups: tuple[int, ...] = argument(_PLACES)
    units: tuple[int, ...] = argument(_PLACES)

    def __post_init__(self) -> None:
        require_rules(self)

    def require_fit(self, shape: Sequence[int], sizes: Sequence[int]) -> None:
        """Checks that it fits its weight and the groups of its wrapper.

        Args:
            shape: of the weight.
            sizes: of each group, how many units it has.

        Raises:
            ValueError: if anything lies beyond them, or not all units lie on it.
        """
        if not -len(shape) <= self.axis < len(shape):
            raise ValueError(
                f"axis must be one of the {len(shape)} of the weight. "
                f"Received: axis={self.axis} of {shown(self.weight)}"
            )
        size = shape[self.axis]
        if not len(self.groups) == len(self.units) == size:
            raise ValueError(
                f"groups and units must say something of all {size} places along the "
                f"axis. Received: {len(self.groups)} groups, {len(self.units)} units "
                f"for axis={self.axis} of {shown(self.weight)}"
            )
        named: dict[int, set[int]] = {}
        for group, unit in zip(self.groups, self.units, strict=True):
            is_known = 0 <= group < len(sizes) and 0 <= unit < sizes[group]
            if not is_known and not group == unit == -1:
                raise ValueError(
                    f"Every place must have one of the {len(sizes)} groups and one of "
                    "its units, or -1 for both. "
                    f"Received: group {group}, unit {unit} in {shown(self.weight)}"
                )
            named.setdefault(group, set()).add(unit)
        for group, units in named.items():
            # What a group keeps is as large as it says that it is.
            if group >= 0 and len(units) != sizes[group]:
                raise ValueError(
                    "All units of a group must lie along the axis. Received: "
                    f"{len(units)} of {sizes[group]} units in {shown(self.weight)}"
                )


def read_axes(role: str, given: Any) -> tuple[Axis, ...]:
    """Axes from objects or their dicts.

    Args:
        role: which argument it is, for messages.
        given: anything.

    Raises:
        ValueError: unless it is a list of such.
    """
    LIST.require(role, given)
    return tuple(
        axis if isinstance(axis, Axis) else _from_dict(f"an axis in {role}", axis)
        for axis in given
    )


def _from_dict(what: str, config: Any) -> Axis:
    require_keys(what, config)
    # Files have lists.
    hashable = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    axis: Axis = fill(Axis, what, hashable)
    return axis
