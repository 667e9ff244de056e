"""The page of symptoms: every message that it quotes is one of the code's, from its beginning on.

A quotation is what stands in backticks in the first column of a table; ``...`` stands for any text.
Names of metrics and settings, which have no space, are no messages.
"""

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.repository import ROOT

PAGE = ROOT / "docs/troubleshooting.md"
SYMPTOM = re.compile(r"^\| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
# Stands in a template for what the code fills in.
GAP = "\0"
MINIMUM_SYMPTOMS, MINIMUM_LITERAL = 30, 10


def read_template(node: ast.AST) -> str | None:
    """The text of a string or f-string, with a gap for each expression."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values
        )
    return None


@cache
def list_templates() -> tuple[str, ...]:
    found = set()
    for path in (ROOT / "verl_pipeline").rglob("*.py"):
        tree = ast.parse(path.read_text())
        skipped = set(_list_parts_and_docstrings(tree))
        for node in ast.walk(tree):
            if id(node) not in skipped and (template := read_template(node)) is not None:
                found.add(template)
    return tuple(found)


def _list_parts_and_docstrings(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield from map(id, node.values)
        elif isinstance(node, ast.Expr):
            yield id(node.value)


def list_symptoms(text: str) -> list[str]:
    """First cells of the page's tables, without their heads."""
    return [cells[0] for cells in SYMPTOM.findall(text) if cells[0] != "symptom"]


def list_quotations(text: str) -> list[str]:
    quoted = [quote for cell in list_symptoms(text) for quote in re.findall(r"`([^`]+)`", cell)]
    return [quote for quote in quoted if " " in quote]


def find_foreign_quotations(text: str, templates: tuple[str, ...]) -> list[str]:
    """Quotations with which no template begins."""
    foreign = []
    for quote in list_quotations(text):
        literal = quote.split("...")
        # A literal part stands in the template as it is: no gap within it.
        pattern = re.compile(".*?".join(map(re.escape, literal)), re.DOTALL)
        if not any(pattern.match(template) for template in templates):
            foreign.append(quote)
    return foreign


def test_every_quoted_message_is_one_of_the_code():
    text = PAGE.read_text()
    assert len(list_symptoms(text)) >= MINIMUM_SYMPTOMS
    quotations = list_quotations(text)
    assert min(len(quote.replace("...", "").strip()) for quote in quotations) >= MINIMUM_LITERAL
    assert find_foreign_quotations(text, list_templates()) == []


@pytest.mark.parametrize("quote", list_quotations(PAGE.read_text()))
def test_a_quotation_with_another_letter_is_found(quote):
    place = max(range(len(quote)), key=lambda at: quote[at].isalpha())
    changed = f"{quote[:place]}#{quote[place + 1 :]}"
    text = PAGE.read_text().replace(f"`{quote}`", f"`{changed}`")
    assert find_foreign_quotations(text, list_templates()) == [changed]


def test_a_quotation_begins_where_its_message_does():
    templates = (f"the run ended {GAP} s after it began",)
    page = "| `ended ... s after it` | a | b |\n| `the run ended ... s` | a | b |\n"
    assert find_foreign_quotations(page, templates) == ["ended ... s after it"]


def test_symptoms_are_found_once_each():
    symptoms = list_symptoms(PAGE.read_text())
    assert len(set(symptoms)) == len(symptoms)


def test_verls_own_message_is_verls():
    spec = importlib.util.find_spec("verl")  # which imports nothing
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).parent / "trainer/ppo/v1/trainer_base.py"
    assert "Unknown trainer '{name}'" in source.read_text()
