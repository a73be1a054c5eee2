"""The house: who may import whom, what Bazel sees, and what is declared to pip."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOLDERS = ("pdp_keras", "examples", "benchmarks", "tests", "docs")
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if "node_modules" not in path.parts and "_build" not in path.parts
)
# What is the project's own, and imported by its bare name.
OWN = {Path(file).stem for file in FILES} | {"pdp_keras", "tests"}
# Only what is installed under another name than it is imported by.
DISTRIBUTIONS = {"absl": "absl-py", "pquant": "pquant-ml", "sklearn": "scikit-learn"}


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_arrows_follow_the_contracts():
    """`lint-imports` holds every import to the contracts in pyproject.toml."""
    found = run(sys.executable, "-m", "importlinter.cli", "lint")
    if found.returncode and "No module named" in found.stderr:
        pytest.skip("import-linter is not installed")
    assert found.returncode == 0, found.stdout


def test_bazel_sees_every_file():
    """`bazel query` answers without a network, and knows every Python file."""
    if not shutil.which("bazel"):
        pytest.skip("bazel is not installed (Debian: bazel-bootstrap)")
    found = run("bazel", "query", "--noshow_progress", "labels(srcs, //...)")
    assert found.returncode == 0, found.stderr
    labels = {
        line.removeprefix("//").replace(":", "/").lstrip("/")
        for line in found.stdout.split()
        if line.startswith("//")
    }
    assert set(FILES) <= labels


def top_level_imports(path):
    """Names imported when a file is, and those that wait for a call."""
    at_once, later = set(), set()

    def visit(node, found):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found |= {alias.name.split(".")[0] for alias in child.names}
            elif isinstance(child, ast.ImportFrom) and not child.level:
                found.add(child.module.split(".")[0])
            waits = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child)
            visit(child, later if waits or types else found)

    visit(ast.parse((ROOT / path).read_text()), at_once)
    return at_once, later - at_once


def distributions(names):
    """The packages to install for imported names that are not the project's own."""
    others = names - OWN - sys.stdlib_module_names
    return {DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in others}


def declared(*extras):
    """What pyproject.toml installs: the core, and extras with what they include."""
    waiting, names = list(extras), set()
    groups = [PROJECT["dependencies"]]
    while groups:
        for requirement in groups.pop():
            name, included = re.match(
                r"([\w.-]+)(?:\[([\w,]+)\])?", requirement
            ).groups()
            names.add(name.lower().replace("_", "-"))
            if name == PROJECT["name"]:
                waiting += included.split(",")
        if waiting:
            groups.append(PROJECT["optional-dependencies"][waiting.pop()])
    return names


EVERYTHING = tuple(PROJECT["optional-dependencies"])
AT_ONCE = {"pdp_keras": (), "examples": ("examples",), "docs": ("docs",)}


@pytest.mark.parametrize("path", FILES)
def test_third_parties_are_declared(path):
    """What importing the package needs is in the core; the rest may be an extra."""
    at_once, later = top_level_imports(path)
    extras = AT_ONCE.get(path.split("/")[0], ("test", "backends", "lint"))
    if path == "pdp_keras/plot.py":
        extras = ("plot",)
    assert distributions(at_once) <= declared(*extras)
    assert distributions(later) <= declared(*EVERYTHING)


def test_undeclared_imports_are_noticed(tmp_path, monkeypatch):
    text = "import numpy\nfrom absl import app\ndef f():\n    import torch.nn\n"
    (tmp_path / "new.py").write_text(text)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    at_once, later = top_level_imports("new.py")
    assert distributions(at_once) == {"numpy", "absl-py"}
    assert distributions(later) == {"torch"}
    assert not distributions(at_once) <= declared()
