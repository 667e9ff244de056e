"""Random pytest files, to compare what we predict with what pytest collects.

Each file is harmless: its functions do nothing. Names come from small sets, so that definitions
shadow each other, override each other in subclasses, and use fixtures that exist or do not.
"""

import random

_FUNCTION_NAMES = ("test_a", "test_b", "test_c", "testing", "tested_d", "helper", "check_test")
_CLASS_NAMES = ("TestA", "TestB", "Testing", "Checks", "Base", "Tests")
_FIXTURE_NAMES = ("one", "two", "test_f")
_SEQUENCES = (
    "[1, 2]",
    "(1, 2, 3)",
    "range(3)",
    "range(1, 9, 3)",
    "CASES",
    "NAMES",
    "list(range(2))",
    "[i * i for i in range(4)]",
    "[(i, j) for i in range(2) for j in CASES]",
    "CASES + [7]",
    "[0] * 3",
    "[*CASES, 9]",
    "{1, 1, 2}",
    "{'a': 1, 'b': 2}",
    "{'a': 1, 'b': 2}.items()",
    "'abc'",
    "list(zip(CASES, 'ab'))",
    "list(enumerate(CASES))",
    "enumerate(CASES)",
    "itertools.product([1, 2], CASES)",
    "[pytest.param(1, id='x'), 2]",
    "[pytest.param(1, marks=pytest.mark.skip), pytest.param(2, marks=[pytest.mark.xfail])]",
    "sorted(CASES)",
    "[make, len]",
)
_PAIRS = (
    "[(1, 2), (3, 4), (5, 6)]",
    "[[1, 2]]",
    "[(i, i + 1) for i in range(3)]",
    "[pytest.param(1, 2, id='p'), (3, 4)]",
    "PAIRS",
    "zip(CASES, [4, 5, 6])",
    "list(enumerate(NAMES))",
    "{'a': 1}.items()",
    "PAIRS + [(8, 9)]",
)
_ODD_SEQUENCES = ("[i for i in range(4) if i]", "GROWN", "make()", "[]", "map(str, CASES)")
_ODD_PAIRS = (
    "[(1, 2, 3)]",
    "['ab', 'cd']",
    "[pytest.param(1)]",
    "itertools.product(CASES, repeat=2)",
)
_HEADER = """\
import functools
import itertools
import unittest
from dataclasses import dataclass
from typing import NamedTuple
import pytest
from pytest import mark
from solution import f

CASES = [1, 2, 3]
NAMES = ("x", "y")
PAIRS = [(1, 2), (3, 4)]
GROWN = [1]
GROWN.append(2)

def make():
    return [1, 2]

def passes(function):
    return function

def replaces(function):
    return 3
"""


def make_pytest_file(seed: int) -> str:
    """Return the file of ``seed``."""
    return _Writer(random.Random(seed)).write_file()


class _Writer:
    def __init__(self, generator: random.Random):
        self.random = generator
        self.number = 0
        self.fixtures: list[str] = []
        self.classes: list[str] = []

    def is_likely(self, share: float) -> bool:
        return self.random.random() < share

    def choose(self, usual: tuple[str, ...], rare: tuple[str, ...]) -> str:
        return self.random.choice(rare if self.is_likely(0.06) else usual)

    def choose_name(self, names: tuple[str, ...]) -> str:
        """Return a name that is mostly new."""
        self.number += 1
        name = self.random.choice(names)
        return name if self.is_likely(0.1) else f"{name}{self.number}"

    def choose_fixture(self) -> str:
        known = self.fixtures if self.fixtures and self.is_likely(0.95) else ["request"]
        return "missing" if self.is_likely(0.03) else self.random.choice(known)

    def write_file(self) -> str:
        blocks = [self.write_block(0) for _ in range(self.random.randint(1, 5))]
        if self.is_likely(0.1):
            blocks.insert(0, self.write_pytestmark())
        if self.is_likely(0.1):
            blocks.append("if __name__ == '__main__':\n    pytest.main()\n")
        return _HEADER + "\n" + "\n".join(blocks)

    def write_block(self, depth: int) -> str:
        writers = {
            self.write_function: 8,
            self.write_fixture: 4,
            self.write_class: 5 if depth < 2 else 0,
            self.write_assignment: 1,
            self.write_condition: 1,
        }
        writer = self.random.choices(list(writers), list(writers.values()))[0]
        return writer(depth)

    def write_function(self, depth: int) -> str:
        lines, names = [], []
        arguments = ["self"] if depth else []
        for _ in range(self.random.choice((0, 0, 0, 1, 1, 2))):
            mark, bound = self.write_mark()
            lines.append(f"@{mark}")
            names += bound
        used = [name for name in names if self.is_likely(0.95)]
        if self.is_likely(0.25):
            used.append(self.choose_fixture())
        arguments += dict.fromkeys(used)
        if self.is_likely(0.08):
            arguments.append(self.random.choice(("x=1", "*, one", "*rest", "**more", "a=2")))
        kind = "async def" if self.is_likely(0.02) else "def"
        lines.append(f"{kind} {self.choose_name(_FUNCTION_NAMES)}({', '.join(arguments)}):")
        lines.append(f"    {self.write_body()}")
        return "\n".join(lines) + "\n"

    def write_body(self) -> str:
        if self.is_likely(0.03):
            return "def test_inner(): pass"
        if self.is_likely(0.02):
            return "yield 1"
        return "assert f"

    def write_mark(self) -> tuple[str, list[str]]:
        """Return a decorator, and the arguments that it fills."""
        kind = self.random.randint(0, 9)
        prefix = self.random.choice(("pytest.mark", "mark"))
        if kind < 4:
            name = self.random.choice(("a", "b", "one"))
            names = self.choose((f"'{name}'",), (f"['{name}']", f"'{name},'"))
            ids = self.choose(("", "", ", ids=str"), (", ids=['i', 'j']",))
            through = ", indirect=True" if name == "one" and self.is_likely(0.5) else ""
            values = self.choose(_SEQUENCES, _ODD_SEQUENCES)
            return f"{prefix}.parametrize({names}, {values}{ids}{through})", [name]
        if kind < 7:
            names = self.random.choice(("'a, b'", "('a', 'b')", "'a,b'"))
            return f"{prefix}.parametrize({names}, {self.choose(_PAIRS, _ODD_PAIRS)})", ["a", "b"]
        if kind == 7:
            return f"{prefix}.usefixtures('{self.choose_fixture()}')", []
        others = (
            "slow",
            "skip(reason='no')",
            "skipif(False, reason='no')",
            "skipif(f is None, reason='no')",
            "xfail",
            "xfail(strict=True)",
        )
        other = self.random.choice(others)
        if self.is_likely(0.1):
            return self.random.choice(("passes", "replaces", "functools.lru_cache")), []
        return f"{prefix}.{other}", []

    def write_fixture(self, depth: int) -> str:
        settings = []
        if self.is_likely(0.3):
            settings.append(f"params={self.choose(_SEQUENCES, _ODD_SEQUENCES)}")
        if self.is_likely(0.2):
            settings.append("autouse=True")
        if self.is_likely(0.1):
            settings.append(f"name='{self.random.choice(_FIXTURE_NAMES)}'")
        if self.is_likely(0.2):
            settings.append(f"scope='{self.random.choice(('module', 'class', 'session'))}'")
        call = f"({', '.join(settings)})" if settings or self.is_likely(0.5) else ""
        arguments = ["self"] if depth else []
        if self.is_likely(0.3):
            arguments.append(self.choose_fixture())
        name = self.choose_name(_FIXTURE_NAMES)
        self.fixtures.append(name)
        return f"@pytest.fixture{call}\ndef {name}({', '.join(arguments)}):\n    return 1\n"

    def write_class(self, depth: int) -> str:
        usual = ("", "", "", "(unittest.TestCase)", "(object)", *(f"({c})" for c in self.classes))
        base = self.choose(usual, ("(NamedTuple)", "(Exception)", "(dict)", "(f)", "(TestA, Base)"))
        name = self.choose_name(_CLASS_NAMES)
        if not depth:
            self.classes.append(name)
        lines = []
        if self.is_likely(0.08):
            lines.append(self.random.choice(("@dataclass", f"@{self.write_mark()[0]}", "@passes")))
        lines.append(f"class {name}{base}:")
        body = [self.write_block(depth + 1) for _ in range(self.random.randint(1, 3))]
        if self.is_likely(0.05) and base != "(NamedTuple)":
            body.append("def __init__(self):\n    pass\n")
        if self.is_likely(0.05):
            body.append(self.write_pytestmark())
        lines += [f"    {line}" for block in body for line in block.splitlines()]
        return "\n".join(lines) + "\n"

    def write_assignment(self, _depth: int) -> str:
        name = self.random.choice((*_FUNCTION_NAMES, *_CLASS_NAMES, "__test__", "pytest_plugins"))
        value = self.random.choice(("[1, 2]", "make", "lambda: 1", "None", "3", "object()"))
        return f"{name} = {value}\n"

    def write_condition(self, depth: int) -> str:
        heads = ("if f:", "for i in range(2):", "try:", "with unittest.TestCase().subTest():")
        head = self.random.choice(heads)
        lines = [f"    {line}" for line in self.write_block(depth).splitlines()]
        end = ["except ValueError:", "    pass"] if head == "try:" else []
        return "\n".join([head, *lines, *end]) + "\n"

    def write_pytestmark(self) -> str:
        mark = self.write_mark()[0]
        return f"pytestmark = {self.random.choice((mark, f'[{mark}]'))}\n"
