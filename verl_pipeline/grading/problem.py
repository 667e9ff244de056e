"""One schema for the problems of every source; what reads a source is in
:mod:`verl_pipeline.grading.readers`.

Invariants:
* A problem's tests are all of one kind.
* Values are exact built-in types (None, bool, int, float, str, bytes, list, tuple, set, frozenset,
  dict), nothing else.
"""

import ast
import functools
from dataclasses import dataclass
from typing import Any, Literal

# Seconds of CPU time a test; LiveCodeBench's own grader and DeepCoder's for every other source.
LIVECODEBENCH_TIME_S, TIME_S = 6.0, 12.0
# Bytes; LiveCodeBench advises 4 GB.
MEMORY_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Comparison:
    """How an output is compared with the expected one.

    Attributes:
        rule: ``strict``; ``tolerance``: numbers may differ by ``absolute`` or ``relative``;
            ``any_order``: lines (of text) or elements (of a sequence) may come in any order;
            ``checker``: a program decides.
        absolute, relative: as in ``math.isclose``.
        checker: Python source with ``check(input, expected, output) -> bool``, run in a jail of its
            own.
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
    """The program is run with ``input`` on standard input; what it prints is compared with
    ``output``.
    """

    input: str
    output: str

    @property
    def size(self) -> int:
        """Characters of input."""
        return len(self.input)


@dataclass(frozen=True)
class CallTest:
    """The function is called with ``args``; what it returns is compared with ``output``, if
    ``boxed`` with a list of that as well.
    """

    args: tuple[Any, ...]
    output: Any
    boxed: bool = False

    @property
    def size(self) -> int:
        """Characters of the arguments as text."""
        return len(repr(self.args))


@dataclass(frozen=True)
class AssertTest:
    """``source`` runs in the judge's own interpreter; the functions it names are calls into the
    candidate's.

    Attributes:
        source: Python with asserts.
        names: what the candidate must define; ``Solution`` is instantiated by ``source``.
        objects: functions and methods may return objects of the candidate's own classes, which
            answer for themselves when ``source`` asks them; otherwise only calling a class gives
            one, and functions return values.
    """

    source: str
    names: tuple[str, ...]
    objects: bool = False

    @property
    def size(self) -> int:
        """Characters of source."""
        return len(self.source)


Test = StdinTest | CallTest | AssertTest


@dataclass(frozen=True)
class Problem:
    """What a program is graded against.

    Attributes:
        name: unique within its source.
        source: data set, for reports.
        tests: in the data set's order.
        entry_point: function, or method of ``class Solution``, that call tests call.
        prelude: code that is put in front of the candidate's (HumanEval's prompt, imports a source
            promises).
        comparison: how outputs are compared.
        time_s: CPU seconds for each test.
        memory_bytes: for the candidate alone.
        public: how many of the tests, from the first, the prompt may show.
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
        if (error := syntax_error(self.prelude)) is not None:
            raise ValueError(f"{self.source}/{self.name}: the prelude is no Python: {error}")
        if kinds == {CallTest} and not self.entry_point:
            raise ValueError(f"{self.source}/{self.name}: call tests need an entry_point (fn_name)")


@functools.lru_cache(maxsize=256)
def syntax_error(source: str) -> str | None:
    """Why ``source`` is no Python, or None."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError) as error:
        return str(error)
    return None
