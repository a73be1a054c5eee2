"""The recipes of `docs/design`, followed to the letter in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "docs" / "design").glob("add_a_*.md"))
FENCE = re.compile(r"^```(py|diff|sh)\n(.*?)^```", re.M | re.S)


def write_file(copy, block):
    """A file, where the block's first line names one."""
    path = re.match(r"# (\S+\.py)\n", block)
    if path:
        target = copy / path[1]
        assert not target.exists(), f"{path[1]} exists already"
        target.write_text(block.partition("\n")[2])


def apply_edit(copy, block):
    """A change of a file: its lines stand there once, and others take their place."""
    name, _, lines = block.partition("\n")
    path = copy / name.removeprefix("--- ")
    kept = lines.splitlines(keepends=True)
    before = "".join(line[1:] for line in kept if line[0] in " -")
    after = "".join(line[1:] for line in kept if line[0] in " +")
    text = path.read_text()
    assert text.count(before) == 1, f"{name}: not once in the file:\n{before}"
    path.write_text(text.replace(before, after))


def run_commands(copy, block):
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    for command in block.splitlines():
        words = command.split()
        assert words[:3] == ["python", "-m", "pytest"], command
        done = subprocess.run(
            [sys.executable, *words[1:], "-p", "no:cacheprovider"],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:]


STEPS = {"py": write_file, "diff": apply_edit, "sh": run_commands}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_followed_to_the_letter(recipe, tmp_path):
    for folder in ("pdp_keras", "tests"):
        skipped = shutil.ignore_patterns("__pycache__", "*.keras")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=skipped)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    blocks = FENCE.findall(recipe.read_text())
    assert {kind for kind, _ in blocks} == set(STEPS)
    for kind, block in blocks:
        STEPS[kind](tmp_path, block)
    lint = subprocess.run(
        [sys.executable, "-m", "importlinter.cli", "lint"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert lint.returncode == 0, lint.stdout


def test_there_are_four():
    assert len(RECIPES) == 4
