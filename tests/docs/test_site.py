"""The documentation builds, strictly, and asks nobody else for anything."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def build(docs, output):
    """Builds a copy without executing notebooks; the output on failure."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "--builder", "html", "--quiet"),
            *("--fail-on-warning", "--keep-going", "--nitpicky"),
            *("-D", "nb_execution_mode=off", str(docs), str(output)),
        ],
        capture_output=True,
        text=True,
    )
    return done.stderr if done.returncode else None


@pytest.mark.timeout(1500)
def test_the_site_builds_and_loads_nothing_from_elsewhere():
    done = subprocess.run(
        ["bash", "docs/build.sh"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pages = list((ROOT / "docs" / "_build" / "html").rglob("*.html"))
    assert len(pages) > 40
    loads = re.compile(
        r"<(?:script|img|link|iframe)[^>]+(?:src|href)=\"(https?:[^\"]+)"
    )
    for page in pages:
        assert loads.findall(page.read_text()) == [], page.name
    notebook = (ROOT / "docs/_build/html/notebooks/fashion_mnist.html").read_text()
    assert "cell_output" in notebook


@pytest.mark.parametrize(
    ("page", "before", "after", "complaint"),
    [
        ("choose.md", "(guides/channels.md)", "(guides/chanels.md)", "guides/chanels"),
        (
            "reference/modes.md",
            ".. autoclass:: pdp_keras.NM\n",
            "",
            "pdp_keras.NM is pub",
        ),
        ("concepts.md", "pdp_keras.RelativeTemperature>", "pdp_keras.Warm>", "Warm"),
    ],
    ids=["broken link", "undocumented name", "unknown reference"],
)
def test_a_fault_fails_the_build(tmp_path, page, before, after, complaint):
    pytest.importorskip("furo")
    # In a folder beside the package, which the settings look for.
    for name in ("docs", "pdp_keras"):
        skipped = shutil.ignore_patterns("_build", "__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=skipped)
    for name in ("pyproject.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    path = tmp_path / "docs" / page
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after, 1))
    found = build(tmp_path / "docs", tmp_path / "html")
    assert found is not None and complaint in found
