"""Readers: one function per source that turns a row, as published, into a :class:`Problem`.

Invariants:
* A row is read with all of its tests, or it raises a :class:`BadRow` with the cause.
* Everything that reads rows (rewards, evaluation, ``verl-pipeline grade``, the recipe) reads their
  tests here, so that a row that one of them takes all of them take.
* A row without the fields that its source needs is refused with their names
  (:mod:`.needed_fields`).
* Readers neither select nor drop tests, and they keep all function names.
"""

import difflib
from collections.abc import Callable
from typing import Any

from verl_pipeline.errors import escape_controls
from verl_pipeline.grading.problem import Problem
from verl_pipeline.grading.readers.assert_readers import (
    read_cruxeval,
    read_humaneval,
    read_leetcode,
    read_mbpp,
    read_mbpp_plus,
)
from verl_pipeline.grading.readers.bad_row import BadRow, MissingFields
from verl_pipeline.grading.readers.livecodebench_reader import read_livecodebench
from verl_pipeline.grading.readers.needed_fields import describe_missing_fields
from verl_pipeline.grading.readers.pair_readers import (
    read_codeforces,
    read_primeintellect,
    read_taco,
)
from verl_pipeline.grading.readers.pytest_reader import read_kodcode
from verl_pipeline.grading.readers.row_values import describe_value

_MAX_CAUSE_CHARACTERS = 500

READERS: dict[str, Callable[..., Problem]] = {
    "apps": read_taco,
    "code_contests": read_taco,
    "codeforces": read_codeforces,
    "cruxeval": read_cruxeval,
    "humaneval": read_humaneval,
    "humanevalplus": read_humaneval,
    "kodcode": read_kodcode,
    "leetcode": read_leetcode,
    "livecodebench": read_livecodebench,
    "mbpp": read_mbpp,
    "mbppplus": read_mbpp_plus,
    "primeintellect": read_primeintellect,
    "taco": read_taco,
}


def read_problem(source: str, tests: Any, *, name: str, **settings: Any) -> Problem:
    """Read the tests of a row by the reader of ``source``; ``settings`` are fields of the problem.

    Args:
        tests: the tests as the source publishes them, or the row that holds them; as text (JSON or
            the ``repr`` of a Python value), or as values of any library.

    Raises:
        MissingFields: the row lacks what the source needs; the message is one line, as it is of:
        BadRow: there is no such reader, or it cannot read the tests.
    """
    if not isinstance(source, str) or source not in READERS:
        raise BadRow(_describe_source(source))
    try:
        return READERS[source](tests, name=name, source=source, **settings)
    except ValueError as error:
        cause = str(error)
    except (TypeError, LookupError, AttributeError, ArithmeticError) as error:
        cause = f"the tests have a value that {source} does not publish: {error}"
    except (RecursionError, MemoryError):
        cause = "the tests are nested too deeply"
    missing = describe_missing_fields(source, tests)
    error_class, cause = (MissingFields, missing) if missing else (BadRow, cause)
    raise error_class(escape_controls(" ".join(cause.split())[:_MAX_CAUSE_CHARACTERS]))


def _describe_source(source: Any) -> str:
    names = ", ".join(sorted(READERS))
    if not isinstance(source, str):
        return f"source is {describe_value(source)}; expected one of {names}"
    near = difflib.get_close_matches(source, READERS, 1)
    hint = f": did you mean {near[0]!r}?" if near else "."
    return f"no reader for source {source[:80]!r}{hint} Use one of {names}"


__all__ = [
    "READERS",
    "BadRow",
    "MissingFields",
    "read_codeforces",
    "read_cruxeval",
    "read_humaneval",
    "read_kodcode",
    "read_leetcode",
    "read_livecodebench",
    "read_mbpp",
    "read_mbpp_plus",
    "read_primeintellect",
    "read_problem",
    "read_taco",
]
