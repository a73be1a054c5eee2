"""The messages that the troubleshooting page explains are those in the code."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "troubleshooting.md").read_text()
# Keras' own, and such as begin with a name that the code puts in.
OTHERS = {"Could not locate class", "for target"}


def messages():
    """The first cell of every row; where it begins otherwise, what the code has."""
    for line in PAGE.splitlines():
        if line.startswith("| `"):
            quoted = re.findall(r"`([^`]+)`", line.split("|")[1])
            yield quoted[-1] if "in the code" in line.split("|")[1] else quoted[0]


def strings_of_the_code():
    """Every literal text in the package, the parts of f-strings joined by a blank."""
    found = []
    for path in (ROOT / "pdp_keras").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


CODE = strings_of_the_code()


@pytest.mark.parametrize("message", sorted(set(messages()) - OTHERS))
def test_the_message_stands_in_the_code(message):
    assert message in CODE


def test_there_are_messages():
    assert len(list(messages())) > 50
