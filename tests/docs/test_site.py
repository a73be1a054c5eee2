"""The documentation builds, strictly, and asks nobody else for anything."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


# The copy is built with the interpreter of the tests, and nothing is installed.
SET_UP = f"""setup_env() {{ VENV_PYTHON={shlex.quote(sys.executable)}; }}
apt_need() {{ :; }}
"""
NM = "\n.. autoclass:: pdp_keras.NM\n"


def copy_of_the_project(folder, edits):
    """What the build reads, with pages changed: (page, before, after) each."""
    for name in ("docs", "pdp_keras"):
        skipped = shutil.ignore_patterns("_build", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    for name in ("pyproject.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    (folder / "tests").mkdir()
    (folder / "tests" / "setup_env.sh").write_text(SET_UP)
    for page, before, after in edits:
        path = folder / "docs" / page
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after, 1))
    return folder


def build(project):
    return subprocess.run(
        ["bash", "docs/build.sh", "--no-notebooks"],
        cwd=project,
        capture_output=True,
        text=True,
    )


@pytest.mark.timeout(1500)
def test_the_site_builds_and_loads_nothing_from_elsewhere():
    done = subprocess.run(
        ["bash", "docs/build.sh"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pages = list((ROOT / "docs" / "_build" / "html").rglob("*.html"))
    assert len(pages) > 40
    loads = re.compile(
        r"<(?:script|img|link|iframe)[^>]+(?:src|href)=\"((?:https?:)?//[^\"]+)"
    )
    for page in pages:
        assert loads.findall(page.read_text()) == [], page.name
    notebook = (ROOT / "docs/_build/html/notebooks/fashion_mnist.html").read_text()
    assert "cell_output" in notebook


@pytest.mark.parametrize(
    ("edits", "complaint"),
    [
        (
            [("choose.md", "(guides/channels.md)", "(guides/chanels.md)")],
            "guides/chanels",
        ),
        ([("reference/modes.md", NM, "")], "pdp_keras.NM is public"),
        (
            [
                ("reference/modes.md", NM, ""),
                ("design/index.md", "\n", f"\n\n```{{eval-rst}}{NM}```\n"),
            ],
            "pdp_keras.NM is public",
        ),
        (
            [("concepts.md", "pdp_keras.RelativeTemperature>", "pdp_keras.Warm>")],
            "pdp_keras.Warm",
        ),
    ],
    ids=["broken link", "undocumented name", "name elsewhere", "unknown reference"],
)
def test_a_fault_fails_every_build(tmp_path, edits, complaint):
    pytest.importorskip("furo")
    project = copy_of_the_project(tmp_path, edits)
    # The second build finds what the first has left.
    for _ in range(2):
        done = build(project)
        assert done.returncode != 0 and complaint in done.stderr
