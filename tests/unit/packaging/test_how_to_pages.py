"""The how-to pages: each opens with its box, and the site lists it; the glossary is in order."""

import re

import pytest

from tests.helpers.repository import ROOT

HOW_TO = sorted((ROOT / "docs/how-to").glob("*.md"))
GLOSSARY = ROOT / "docs/glossary.md"
BOX = re.compile(
    r"^\| In short \| \|\n\|---\|---\|\n"
    r"\| \*\*Expected result\*\* \| .+ \|\n"
    r"\| \*\*Time\*\* \| .+ \|\n"
    r"\| \*\*Command\*\* \| .+ \|\n\n",
    re.MULTILINE,
)
TERM = re.compile(r"^\* \*\*(.+?)\*\*: (.+?)(?=^\* |\Z)", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", HOW_TO, ids=lambda path: path.stem)
def test_a_page_opens_with_its_box(path):
    text = path.read_text()
    box = BOX.search(text)
    assert box is not None
    # A title and a paragraph that says for whom it is.
    assert text[: box.start()].count("\n\n") == 2
    assert text.split("\n\n")[1].startswith("For who")


@pytest.mark.parametrize("path", HOW_TO, ids=lambda path: path.stem)
def test_the_site_lists_a_page_once(path):
    assert (ROOT / "mkdocs.yml").read_text().count(f"how-to/{path.name}") == 1


def test_every_subject_has_a_page():
    assert len(HOW_TO) >= 12


def test_the_glossary_is_alphabetical_and_linked():
    terms = TERM.findall(GLOSSARY.read_text())
    names = [name.casefold() for name, _text in terms]
    assert len(names) > 50 and names == sorted(set(names))
    assert [name for name, text in terms if not re.search(r"\]\([^)]+\.md\)\s*$", text)] == []
