"""The page that follows a batch names files and functions that exist, and so does its figure."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from docs_site.batch_figure import DRIVER, FIRST, HOPS, LANES, STEP, WIDTH, draw_figure
from tests.helpers.repository import ROOT

PAGE = ROOT / "docs/life-of-a-batch.md"
PLACE = re.compile(
    r"\[`([\w/]+\.py)`\]\(\.\./verl_pipeline/([\w/]+\.py)\)\s+((?:`[\w.]+`(?:,\s)?)+)"
)
ROW = re.compile(r"^\| (\d+) \| .* \|$", re.MULTILINE)
# Of the figure's font, in its units; a wide letter is not the mean.
LETTER = 6.4


@cache
def list_functions(path: Path) -> frozenset[str]:
    """Functions of a module, methods as ``Class.method``."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{part.name}"
                for part in node.body
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return frozenset(found)


def list_places(text: str) -> list[tuple[str, str, str]]:
    """Name, file below ``verl_pipeline/`` and function of each place that a text names."""
    return [
        (name, path, function)
        for name, path, functions in PLACE.findall(text)
        for function in re.findall(r"`([\w.]+)`", functions)
    ]


def find_missing(text: str) -> list[str]:
    """Places of a text that the code does not have."""
    missing = []
    for name, path, function in list_places(text):
        file = ROOT / "verl_pipeline" / path
        if name != path or not file.is_file() or function not in list_functions(file):
            missing.append(f"{name} {function}")
    return missing


def test_every_file_and_function_of_the_page_exists():
    text = PAGE.read_text()
    assert len(list_places(text)) > len(HOPS)
    # A link to a module without a function would be checked by nobody.
    links = re.findall(r"\]\(\.\./verl_pipeline/[\w/]+\.py\)", text)
    assert len(links) == len(PLACE.findall(text))
    assert find_missing(text) == []


@pytest.mark.parametrize("hop", HOPS, ids=lambda hop: hop.label)
def test_every_hop_of_the_figure_exists(hop):
    assert hop.function in list_functions(ROOT / "verl_pipeline" / hop.path)


def test_the_page_has_the_figures_hops_in_their_order():
    rows = [match for match in ROW.finditer(PAGE.read_text()) if PLACE.search(match[0])]
    assert [int(row[1]) for row in rows] == list(range(1, len(HOPS) + 1))
    for row, hop in zip(rows, HOPS, strict=True):
        assert list_places(row[0])[0] == (hop.path, hop.path, hop.function)


def test_the_figure_is_what_the_script_draws():
    shown = (ROOT / "docs/life-of-a-batch.svg").read_text()
    assert shown == draw_figure(), "python -m docs_site.batch_figure > docs/life-of-a-batch.svg"


@pytest.mark.parametrize("hop", list(enumerate(HOPS, 1)), ids=lambda hop: str(hop[0]))
def test_no_label_leaves_the_figure(hop):
    number, hop = hop
    left = FIRST + STEP * min(hop.begin, hop.end) + 9
    assert left + LETTER * len(f"{number} {hop.label}") < WIDTH
    assert 0 <= hop.begin < len(LANES) > hop.end and LANES[DRIVER] == "driver"


@pytest.mark.parametrize(
    "text",
    [
        "[`trainer/schedule.py`](../verl_pipeline/trainer/schedule.py) `run_stop`",
        "[`trainer/no_file.py`](../verl_pipeline/trainer/no_file.py) `run_step`",
        "[`trainer/batch.py`](../verl_pipeline/trainer/schedule.py) `run_step`",
        "[`trainer/batch.py`](../verl_pipeline/trainer/batch.py) `check_versions`, `check_nothing`",
        "[`trainer/dispatch.py`](../verl_pipeline/trainer/dispatch.py) `take_actions`",
    ],
)
def test_a_place_that_does_not_exist_is_found(text):
    assert len(find_missing(text)) == 1
