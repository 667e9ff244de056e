"""The documents: links lead somewhere, and the README stays short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "recipes/**/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FILE = re.compile(
    r"`((?:benchmarks|docs|examples|recipes|requirements|tests|verl_pipeline)/[\w./-]+\.\w+)`"
)
MAX_README_WORDS = 900


def strip_code(text: str) -> str:
    """Markdown without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def list_anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub forms them."""
    anchors: set[str] = set()
    for heading in re.findall(r"^#+ +(.*)$", strip_code(path.read_text()), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        anchors.add(anchor if anchor not in anchors else f"{anchor}-1")
    return anchors


def find_broken_links(path: Path) -> list[str]:
    """The links of a document to files or headings that do not exist."""
    broken = []
    for link in LINK.findall(strip_code(path.read_text())):
        if re.match(r"\w+:", link):  # another site
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists():
            broken.append(link)
        elif anchor and anchor not in list_anchors(target):
            broken.append(link)
    return broken


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_or_heading(path):
    assert find_broken_links(path) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_is_named_exists(path):
    assert [name for name in FILE.findall(path.read_text()) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("link", ["missing.md", "a.md#no-such-heading", "#nothing"])
def test_a_broken_link_is_found(tmp_path, link):
    (tmp_path / "a.md").write_text("# A heading\n")
    document = tmp_path / "b.md"
    document.write_text(f"# Title\n[good](a.md#a-heading) [good](#title) [bad]({link})\n")
    assert find_broken_links(document) == [link]


def test_the_readme_can_be_read_in_a_minute_or_two():
    words = (ROOT / "README.md").read_text().split()
    assert len(words) <= MAX_README_WORDS
