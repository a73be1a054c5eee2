"""Every Python block of the README and the documentation runs, page by page.

What a reader need not see of a page is in comments: `% invisible-code-block: python`.
"""

import re
from pathlib import Path

import pytest
from sybil.document import Document
from sybil.parsers.myst import PythonCodeBlockParser

ROOT = Path(__file__).parents[2]
# Notebooks are executed when the site is built.
PAGES = [
    ROOT / "README.md",
    *(
        page
        for page in sorted((ROOT / "docs").rglob("*.md"))
        if not {"notebooks", "_build"} & set(page.relative_to(ROOT).parts)
    ),
]
BLOCK = re.compile(r"^(```python|(% |<!--- )invisible-code-block: python)", re.M)


def cases():
    for page in PAGES:
        text = page.read_text()
        if BLOCK.search(text):
            # A page that takes more than some seconds says so.
            marks = [pytest.mark.slow] if re.search(r"^% slow$", text, re.M) else []
            name = page.relative_to(ROOT).as_posix()
            yield pytest.param(page, marks=marks, id=name)


def run_page(page):
    """Runs a page from top to bottom and returns how many blocks it has."""
    document = Document.parse(str(page), PythonCodeBlockParser())
    examples = list(document.examples())
    for example in examples:
        try:
            example.evaluate()
        except Exception as error:
            error.add_note(f"in the block at {page}:{example.line}")
            raise
    return len(examples)


@pytest.mark.parametrize("page", list(cases()))
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_page(page) == len(BLOCK.findall(page.read_text()))


def test_the_readme_has_blocks():
    assert "README.md" in [case.id for case in cases()]


def test_a_wrong_block_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "% invisible-code-block: python\n% x = 1\n\n```python\nassert x == 2\n```\n"
    )
    with pytest.raises(AssertionError) as caught:
        run_page(page)
    assert caught.value.__notes__ == [f"in the block at {page}:4"]
