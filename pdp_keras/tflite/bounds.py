"""Whether a .tflite file may be unpacked: nothing outside of it, and not too much.

A flatbuffer is read by following offsets. A damaged one has some that lead outside; a
hostile one has thousands that lead to the same place, and grows to gigabytes as it is
unpacked. So everything is visited once before: numbers stay where they are, and what is
copied, objects and strings, may not be more than the file has room for.
"""

from __future__ import annotations

import functools
from typing import Any

# What an object takes at least: the offset to it, and the one to its table of fields.
_BYTES_OF_AN_OBJECT = 8
# So many times the size of the file may be copied out of it; strings may be shared.
_MOST_COPIES = 2
# Whose enumeration of types has another name than the field.
_UNIONS = {
    "Details": "QuantizationDetails",
    "ArraySegments": "SparseIndexVector",
    "ArrayIndices": "SparseIndexVector",
}


def require_bounded(schema: Any, data: bytes) -> None:
    """Visits all that a file holds.

    Args:
        schema: the module that TensorFlow's schema was compiled to.
        data: the content of the file.

    Raises:
        ValueError: if something is not inside, or all of it is too much.
    """
    _Visit(schema, data).visit(schema.Model.GetRootAsModel(data, 0))


class _Visit:
    def __init__(self, schema: Any, data: bytes) -> None:
        self.schema = schema
        self.size = len(data)
        self.left = _MOST_COPIES * len(data)

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise ValueError(
                "What a .tflite file holds must not be many times its size. "
                f"Received: a file of {self.size:,} bytes with more than "
                f"{_MOST_COPIES * self.size:,} bytes in objects and strings"
            )

    def visit(self, view: Any) -> None:
        self.take(_BYTES_OF_AN_OBJECT)
        for name in _fields(self.schema, type(view).__name__):
            self.visit_field(view, name)

    def visit_field(self, view: Any, name: str) -> None:
        read = getattr(view, name)
        if hasattr(view, f"{name}AsNumpy"):
            getattr(view, f"{name}AsNumpy")()  # looks where it begins and ends
        elif hasattr(view, f"{name}Length"):
            for i in range(getattr(view, f"{name}Length")()):
                self.visit_value(read(i))
        elif hasattr(view, f"{name}Type"):
            enumeration = _UNIONS.get(name, name)
            create = getattr(self.schema, f"{enumeration}Creator")
            self.visit_made(create(getattr(view, f"{name}Type")(), read()))
        else:
            self.visit_value(read())

    def visit_value(self, value: Any) -> None:
        if isinstance(value, bytes):
            self.take(len(value))
        elif hasattr(value, "_tab"):
            self.visit(value)

    def visit_made(self, options: Any) -> None:
        """What an operator's options hold, of which there is no view."""
        if options is not None:
            self.take(_BYTES_OF_AN_OBJECT)
            for value in vars(options).values():
                self.visit_value(value)


@functools.cache
def _fields(schema: Any, kind: str) -> tuple[str, ...]:
    """How the fields of a table are read, from the object that it is unpacked to."""
    unpacked = getattr(schema, f"{kind}T")()
    names = [f"{name[0].upper()}{name[1:]}" for name in vars(unpacked)]
    return tuple(names)
