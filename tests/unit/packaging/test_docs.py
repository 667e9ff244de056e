"""The documents: links and names lead somewhere, and pages stay short."""

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.helpers.repository import ROOT, list_repository_files

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "verl_pipeline/**/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
# The folders that a page may leave out of a path, as `e2e/test_staleness.py`.
PARENTS = ("", "tests", "verl_pipeline")
FILE = re.compile(
    r"`((?:benchmarks|docs|examples|requirements|tests|verl_pipeline)/[\w./-]+\.\w+"
    r"|[a-z]\w*/[\w./-]+\.py)`"
)
# Dotted names of ours in code, configuration and documents.
DOTTED = re.compile(
    r"(?<![\w./])(?:benchmarks|tests\.(?:e2e|helpers|integration|unit)|verl_pipeline)(?:\.(?!md\b)[A-Za-z_]\w*)+"
)
# Files that name what has moved.
OTHERS = (
    "verl_pipeline/verl_adapter/checks/moved_paths.py",
    "tests/unit/verl_adapter/checks/test_moved_paths.py",
)
# Dotted names that stand in no file: a key of metadata, a module made at run time, one that a test
# expects not to find.
NO_FILE = {
    "verl_pipeline.deepcoder",
    "verl_pipeline.filters.Nothing",
    "verl_pipeline.verl_adapter.cpu.device",
}
# Pages of the package's documents that code, its messages and examples name; not verl's own.
NAMED_PAGE = re.compile(r"(?<!verl )(?<![\w./-])docs/[\w./-]+\.md")
MAX_README_WORDS = 900
MAX_PAGE_WORDS = 1_200
# Pages to look things up in.
REFERENCE = {"CHANGELOG.md", "docs/metrics.md"}


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
    folders = [path.parent, *(ROOT / parent for parent in PARENTS)]
    named = FILE.findall(path.read_text())
    assert [name for name in named if not any((at / name).exists() for at in folders)] == []


def test_every_page_that_code_names_exists():
    missing = []
    for path in list_repository_files("benchmarks", "docs_site", "examples", "verl_pipeline"):
        if path.suffix in (".md", ".py", ".sh", ".toml", ".yaml"):
            named = NAMED_PAGE.findall(path.read_text())
            missing += [f"{path.relative_to(ROOT)}: {page}" for page in named
                        if not (ROOT / page).is_file()]  # fmt: skip
    assert missing == []


@cache
def list_definitions(path: Path) -> set[str]:
    """What a module defines or imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def exists_in_code(name: str) -> bool:
    """Whether ``a.b.C.d`` is a package, a module, or something that a module defines."""
    place = ROOT
    for part in (parts := name.split(".")):
        if not (place / part).is_dir():
            break
        place /= part
    rest = parts[len(place.relative_to(ROOT).parts) :]
    if rest and (module := place / f"{rest[0]}.py").is_file():
        rest = rest[1:]
    else:
        module = place / "__init__.py"
    # Only the first: what follows may belong to something imported.
    return rest[0] in list_definitions(module) if rest and module.is_file() else not rest


def test_every_dotted_name_of_ours_exists():
    missing = []
    for path in list_repository_files("*.py", "*.md", "*.yaml", "*.toml", "Makefile"):
        name = str(path.relative_to(ROOT))
        if name in OTHERS or name.startswith("tests/attacks/"):
            continue
        found = DOTTED.findall(path.read_text())
        missing += [
            f"{name}: {dotted}" for dotted in {*found} - NO_FILE if not exists_in_code(dotted)
        ]
    assert missing == []


def list_imports_between_rooms() -> dict[str, set[str]]:
    """By room (a folder or a module of the package): the others that it imports, lazily too."""
    package = ROOT / "verl_pipeline"
    imports: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        found = imports.setdefault(room, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            if node.module == "verl_pipeline":
                found |= {alias.name for alias in node.names}
            elif node.module.startswith("verl_pipeline."):
                found.add(node.module.split(".")[1])
    return {room: (found & imports.keys()) - {room} for room, found in imports.items()}


def test_the_table_of_rooms_is_what_the_code_imports():
    page = (ROOT / "docs/architecture.md").read_text()
    table = dict(re.findall(r"^\| `(\w+)/` \|.*\|([^|]*)\|$", page, re.MULTILINE))
    imports = list_imports_between_rooms()
    folders = {path.parent.name for path in (ROOT / "verl_pipeline").glob("*/__init__.py")}
    assert folders - {*re.findall(r"`(\w+)/`", page)} == set()
    for room in table.keys() & imports.keys():
        assert set(re.findall(r"`(\w+)`", table[room])) == imports[room] & folders, room


def test_rooms_import_each_other_in_no_circle():
    imports = list_imports_between_rooms()
    del imports["__init__"]  # it gives the trainer on demand only
    order = list(TopologicalSorter(imports).static_order())
    assert order.index("trainer") < order.index("verl_adapter") < order.index("cli")
    with pytest.raises(CycleError):
        TopologicalSorter({**imports, "trainer": {"cli"}}).prepare()


@pytest.mark.parametrize("link", ["missing.md", "a.md#no-such-heading", "#nothing"])
def test_a_broken_link_is_found(tmp_path, link):
    (tmp_path / "a.md").write_text("# A heading\n")
    document = tmp_path / "b.md"
    document.write_text(f"# Title\n[good](a.md#a-heading) [good](#title) [bad]({link})\n")
    assert find_broken_links(document) == [link]


def test_the_readme_can_be_read_in_a_minute_or_two():
    words = (ROOT / "README.md").read_text().split()
    assert len(words) <= MAX_README_WORDS


def count_words(path: Path) -> int:
    """Words as ``wc -w`` counts them; of a page of results, those outside its tables."""
    lines = path.read_text().splitlines()
    if path.stem.endswith("-results"):
        lines = [line for line in lines if not line.startswith("|")]
    return len(" ".join(lines).split())


def test_a_page_can_be_read_at_one_sitting():
    words = {str(path.relative_to(ROOT)): count_words(path) for path in DOCUMENTS}
    long = {name for name, count in words.items() if count > MAX_PAGE_WORDS}
    assert long == REFERENCE, "split the page, or take it from the list of those to look up"


def test_tables_of_results_count_nothing(tmp_path):
    for name, expected in (("a-results.md", 2), ("results.md", 8)):
        (tmp_path / name).write_text("Two words.\n\n| a | b c |\n")
        assert count_words(tmp_path / name) == expected
