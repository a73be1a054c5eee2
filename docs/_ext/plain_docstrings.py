"""Docstrings as they are read in the source, made into reStructuredText.

In them an indented paragraph before the sections is a formula, and |w| means |w|.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Warns|Example|Reference):$")
_CODE = re.compile(r"(`[^`]*`)")


def converted(lines: list[str]) -> list[str]:
    """Formulas as literal blocks; signs that reStructuredText would read escaped."""
    found: list[str] = []
    in_preamble = True
    for i, line in enumerate(lines):
        in_preamble = in_preamble and not _SECTION.match(line)
        is_formula = in_preamble and line.startswith("    ")
        starts = i == 0 or not lines[i - 1].strip()
        in_block = i > 0 and lines[i - 1].startswith("    ")
        if is_formula and starts and not in_block:
            found += [".. code-block:: text", ""]
        is_code = is_formula or line.lstrip().startswith((">>>", "..."))
        found.append(line if is_code else _escaped(line))
    return found


def _escaped(line: str) -> str:
    parts = _CODE.split(line)
    parts[::2] = [
        re.sub(r"(\w)_(?=\W|$)", r"\1\\_", part.replace("|", r"\|"))
        for part in parts[::2]
    ]
    return "".join(parts)


def _convert(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    lines[:] = converted(lines)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx; before napoleon, which reads the sections."""
    app.connect("autodoc-process-docstring", _convert, priority=100)
    return {"parallel_read_safe": True, "version": "1"}
