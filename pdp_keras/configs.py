"""What may stand in a config: rules for arguments and keys, and how errors show them.

A config comes from a file, which may be damaged, of another version, or made to do
harm. So all of it is checked before anything is made of it, and names are looked up in
tables of ours: nothing is imported.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import reprlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

_REPR = reprlib.Repr()
_REPR.maxlevel = 3
_REPR.maxstring = _REPR.maxother = 200
_REPR.maxdict = _REPR.maxlist = _REPR.maxtuple = 12


def shown(value: Any) -> str:
    """The value for an error message; a long one is shortened."""
    return _REPR.repr(value)


@dataclasses.dataclass(frozen=True)
class Rule:
    """What an argument must be.

    Attributes:
        text: in words, after "must be".
        holds: whether a value, of any type, is that.
    """

    text: str
    holds: Callable[[Any], bool]

    def require(self, name: str, value: Any) -> None:
        """Checks an argument.

        Raises:
            ValueError: with the rule and the value.
        """
        if not self.holds(value):
            raise ValueError(
                f"{name} must be {self.text}. Received: {name}={shown(value)}"
            )


def _is_number(value: Any) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:  # an int that is larger than every float
        return False


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def number(text: str, holds: Callable[[Any], bool] = lambda value: True) -> Rule:
    """A rule for finite numbers; bools and text are none."""
    return Rule(text, lambda value: _is_number(value) and bool(holds(value)))


def integer(text: str, holds: Callable[[Any], bool]) -> Rule:
    """A rule for integers; a bool is none."""
    return Rule(text, lambda value: _is_integer(value) and bool(holds(value)))


def sequence_of(rule: Rule, text: str) -> Rule:
    """A rule for lists and tuples of which each member obeys another."""
    return Rule(
        text,
        lambda value: isinstance(value, list | tuple) and all(map(rule.holds, value)),
    )


FINITE = number("a finite number")
POSITIVE = number("a positive number", lambda value: value > 0)
NOT_NEGATIVE = number("a number >= 0", lambda value: value >= 0)
FRACTION = number("a number in [0, 1]", lambda value: 0 <= value <= 1)
INTEGER = integer("an integer", lambda value: True)
COUNT = integer("an integer >= 0", lambda value: value >= 0)
POSITIVE_INTEGER = integer("a positive integer", lambda value: value > 0)
FLAG = Rule("a bool", lambda value: isinstance(value, bool))
TEXT = Rule("text", lambda value: isinstance(value, str))
LIST = Rule("a list", lambda value: isinstance(value, list | tuple))
TEXTS = sequence_of(TEXT, "a list of text")


def argument(rule: Rule, default: Any = dataclasses.MISSING) -> Any:
    """A field of a dataclass whose `__post_init__` calls `require_rules`."""
    return dataclasses.field(default=default, metadata={"rule": rule})


def require_rules(arguments: Any) -> None:
    """Checks every `argument` of a dataclass.

    Raises:
        ValueError: for the first that breaks its rule.
    """
    for field in dataclasses.fields(arguments):
        if "rule" in field.metadata:
            value = getattr(arguments, field.name)
            field.metadata["rule"].require(field.name, value)


def require_keys(
    what: str,
    config: Any,
    required: Collection[str] = (),
    others: Collection[str] | None = None,
) -> None:
    """Checks that a config is a dict with the right keys.

    Args:
        what: what it is a config of, for the message.
        config: anything.
        required: keys that it must have.
        others: the only others that it may have; None for any.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(config, dict):
        raise ValueError(
            f"The config of {what} must be a dict. Received: {shown(config)}"
        )
    missing = [key for key in required if key not in config]
    if missing:
        raise ValueError(
            f"The config of {what} must have the keys {list(required)}. "
            f"Received: none for {missing}"
        )
    if others is None:
        return
    known = list(dict.fromkeys([*required, *others]))
    unknown = [key for key in config if key not in known]
    if unknown:
        raise ValueError(
            f"The config of {what} may have the keys {known} only. "
            f"Received: {shown(unknown)}"
        )


def fill(cls: Any, what: str, arguments: Any) -> Any:
    """An object of a dataclass from a dict of its arguments.

    Raises:
        ValueError: unless they are its arguments, and right.
    """
    fields = dataclasses.fields(cls)
    required = [f.name for f in fields if f.default is dataclasses.MISSING]
    require_keys(what, arguments, required, [f.name for f in fields])
    return cls(**arguments)


def look_up(classes: Mapping[str, Any], key: str, name: Any) -> Any:
    """The row of a name in a table.

    Raises:
        ValueError: for anything else than one of its names.
    """
    # A list cannot even be looked for.
    if not isinstance(name, str) or name not in classes:
        raise ValueError(
            f"{key} must be one of {sorted(classes)}. Received: {key}={shown(name)}"
        )
    return classes[name]


def make(classes: Mapping[str, Any], what: str, config: Any, key: str = "name") -> Any:
    """An object of one of these dataclasses, from its name and arguments in one dict.

    Args:
        classes: the table of the classes, by name.
        what: what all of them are, for the message.
        config: anything.
        key: under which the config has the name.

    Raises:
        ValueError: unless it is a dict with one of the names and right arguments.
    """
    require_keys(what, config)
    arguments = dict(config)
    name = arguments.pop(key, None)
    return fill(look_up(classes, key, name), f"{what} {name!r}", arguments)
