"""One schema for the problems of all sources; :mod:`verl_pipeline.grading.readers` builds them.

Invariants:
* All tests of a problem are of one kind.
* Values are exact built-in types only (None, bool, int, float, str, bytes, list, tuple, set,
  frozenset, dict).
* Names of classes and fields enter :attr:`.grading_files.CandidateSolution.digest` through
  ``repr``: if one is renamed, all stored verdicts are graded again.
"""

import ast
import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, Literal

# CPU seconds for each test: LiveCodeBench's own grader, and DeepCoder's for all other sources.
LIVECODEBENCH_TIME_S, TIME_S = 6.0, 12.0
# LiveCodeBench recommends 4 GB.
MEMORY_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Comparison:
    """How an output is compared with the expected one.

    Attributes:
        rule: ``strict``; ``tolerance``: numbers may differ by ``absolute`` or ``relative``;
            ``any_order``: the lines of a text or the elements of a sequence may come in any order;
            ``checker``: a program decides.
        absolute, relative: as in ``math.isclose``.
        checker: Python source of ``check(input, expected, output) -> bool``; it runs in its own
            jail.
    """

    rule: Literal["strict", "tolerance", "any_order", "checker"] = "strict"
    absolute: float = 0.0
    relative: float = 0.0
    checker: str | None = None

    def __post_init__(self):
        if (self.rule == "checker") != (self.checker is not None):
            raise ValueError(
                f"rule {self.rule!r} {'needs' if self.rule == 'checker' else 'takes no'} checker"
            )


STRICT = Comparison()


@dataclass(frozen=True)
class StdinTest:
    """Runs the program with ``input`` on standard input and compares its output with ``output``."""

    input: str
    output: str

    @property
    def size(self) -> int:
        """Characters of input."""
        return len(self.input)


@dataclass(frozen=True)
class CallTest:
    """Calls the function with ``args`` and compares the returned value with ``output``.

    Attributes:
        args: positional arguments.
        output: expected value.
        boxed: a list with ``output`` as its only element is accepted as well.
    """

    args: tuple[Any, ...]
    output: Any
    boxed: bool = False

    @property
    def size(self) -> int:
        """Characters of the arguments' ``repr``."""
        return len(write_repr(self.args))


@dataclass(frozen=True)
class AssertTest:
    """Runs ``source`` in a jail of its own; the functions it names are calls into the candidate.

    Attributes:
        source: Python with asserts.
        names: functions and classes that the candidate must define; ``source`` instantiates
            ``Solution`` itself.
        objects: functions and methods may return objects of the candidate's own classes, which
            stay in the candidate's process and are queried from there. If False, only calling a
            class may return such an object, and functions must return plain values.
    """

    source: str
    names: tuple[str, ...]
    objects: bool = False

    @property
    def size(self) -> int:
        """Characters of source."""
        return len(self.source)


@dataclass(frozen=True)
class PytestTest(AssertTest):
    """Runs ``source`` with pytest, as a file; its module ``solution`` is the program.

    A class of its own, so that the ``repr`` of other assert tests stays as it is.

    Attributes:
        collected: each test that pytest must collect (``TestClass::test_name``), and the number of
            its cases; anything else is a failure of the sandbox.
        star_names: what ``from solution import *`` binds, of the names that the program has.
    """

    collected: tuple[tuple[str, int], ...] = ()
    star_names: tuple[str, ...] = ()


Test = StdinTest | CallTest | AssertTest


@dataclass(frozen=True)
class Problem:
    """Everything a program is graded with.

    Attributes:
        name: unique within its source.
        source: data source, for reports.
        tests: in the data set's order.
        entry_point: function, or method of ``class Solution``, that call tests call.
        prelude: code that runs before the candidate's (HumanEval's prompt, or the imports that a
            source promises).
        comparison: how outputs are compared.
        time_s: CPU seconds for each test.
        memory_bytes: memory limit of the candidate alone.
        public: the prompt may show the first ``public`` tests.
    """

    name: str
    source: str
    tests: tuple[Test, ...]
    entry_point: str | None = None
    prelude: str = ""
    comparison: Comparison = STRICT
    time_s: float = TIME_S
    memory_bytes: int = MEMORY_BYTES
    public: int = 0

    def __post_init__(self):
        if not self.tests:
            raise ValueError(f"{self.source}/{self.name}: no tests")
        kinds = {type(test) for test in self.tests}
        if len(kinds) > 1:
            raise ValueError(
                f"{self.source}/{self.name}: tests of several kinds: "
                f"{sorted(k.__name__ for k in kinds)}"
            )
        if (error := find_syntax_error(self.prelude)) is not None:
            raise ValueError(f"{self.source}/{self.name}: the prelude is not valid Python: {error}")
        if kinds == {CallTest} and not self.entry_point:
            raise ValueError(f"{self.source}/{self.name}: call tests need an entry_point (fn_name)")


def write_repr(value: Any) -> str:
    """Return ``repr(value)`` of a problem or of values in it, with integers of any length.

    Where ``repr`` refuses an integer (of more than 4,300 digits), integers are hexadecimal.
    """
    try:
        return repr(value)
    except ValueError:
        pass
    if isinstance(value, dict):
        return f"dict({write_repr(list(value.items()))})"
    if isinstance(value, list | tuple | set | frozenset):
        return f"{type(value).__name__}({', '.join(map(write_repr, value))})"
    if dataclasses.is_dataclass(value):
        fields = [getattr(value, field.name) for field in dataclasses.fields(value)]
        return f"{type(value).__name__}{write_repr(fields)}"
    return hex(value)


def write_code(node: ast.AST) -> str:
    """Return ``ast.unparse(node)``; integers too long for it become texts of hexadecimal digits."""
    try:
        return ast.unparse(node)
    except ValueError:
        for child in ast.walk(node):
            if isinstance(child, ast.Constant) and type(child.value) is int:
                child.value = hex(child.value)
        return ast.unparse(node)


@functools.lru_cache(maxsize=256)
def find_syntax_error(source: str) -> str | None:
    """Return why ``source`` is not valid Python, or None if it is."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError) as error:
        return str(error)
    return None
