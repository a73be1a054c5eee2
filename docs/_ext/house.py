"""Draws the packages as the import contract in pyproject.toml states them.

python docs/_ext/house.py    # writes docs/pictures/house.svg, as the build does
"""

from __future__ import annotations

import ast
import html
import textwrap
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "pictures" / "house.svg"
_WIDTH, _ROW, _GAP = 960, 76, 12
# Two wings that do not know each other, what both stand on, and the front door.
_WINGS = {
    "#fdebd0": "masks scheduling allocation modes methods one_shot layers channels "
    "pruned",
    "#d6eaf8": "rewrites tflite targets export",
    "#e5e8e8": "models configs version",
    "#e8f8f5": "prune prune_once strip report callbacks at_target seeds plot",
}


def layers() -> list[list[str]]:
    """The rows of the contract, the highest first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    (rows,) = [c["layers"] for c in contracts if c["type"] == "layers"]
    return [row.split(" | ") for row in rows]


def summary(name: str) -> str:
    """The first line of a package's or module's docstring."""
    folder = ROOT / "pdp_keras" / name
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]


def drawing() -> str:
    """The picture as SVG."""
    rows = layers()
    height = len(rows) * (_ROW + _GAP) + _GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for i, row in enumerate(rows):
        width = (_WIDTH - _GAP) / len(row) - _GAP
        for k, name in enumerate(row):
            x, y = _GAP + k * (width + _GAP), _GAP + i * (_ROW + _GAP)
            parts.append(_box(name, x, y, width))
    return "\n".join([*parts, "</svg>", ""])


def _box(name: str, x: float, y: float, width: float) -> str:
    color = next(c for c, names in _WINGS.items() if name in names.split())
    lines = textwrap.wrap(summary(name).replace("`", ""), int(width / 6.9))[:3]
    text = "".join(
        f'<text x="{x + 10:g}" y="{y + 40 + 14 * i:g}" font-size="11.5" fill="#333">'
        f"{html.escape(line)}</text>"
        for i, line in enumerate(lines)
    )
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{_ROW}" rx="6" '
        f'fill="{color}" stroke="#888"/>'
        f'<text x="{x + 10:g}" y="{y + 22:g}" font-size="15" font-weight="bold">'
        f"{name}</text>{text}"
    )


def write() -> None:
    """Draws anew, if the contract or a docstring has changed."""
    if not PICTURE.exists() or PICTURE.read_text() != drawing():
        PICTURE.write_text(drawing())


if __name__ == "__main__":
    write()
