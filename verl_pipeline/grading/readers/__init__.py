"""Readers: one function per source that turns a row, as published, into a :class:`Problem`.

Invariants:
* A row that cannot be read raises a :class:`BadRow` with the cause; it never becomes a problem with
  fewer tests.
* Readers neither select nor drop tests, and they keep all function names.
"""

from collections.abc import Callable

from verl_pipeline.grading.problem import Problem
from verl_pipeline.grading.readers.assert_readers import (
    read_humaneval,
    read_leetcode,
    read_mbpp,
    read_mbpp_plus,
)
from verl_pipeline.grading.readers.bad_row import BadRow
from verl_pipeline.grading.readers.livecodebench_reader import read_livecodebench
from verl_pipeline.grading.readers.pair_readers import (
    read_codeforces,
    read_primeintellect,
    read_taco,
)
from verl_pipeline.grading.readers.pytest_reader import read_kodcode

READERS: dict[str, Callable[..., Problem]] = {
    "apps": read_taco,
    "code_contests": read_taco,
    "codeforces": read_codeforces,
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

__all__ = [
    "READERS",
    "BadRow",
    "read_codeforces",
    "read_humaneval",
    "read_kodcode",
    "read_leetcode",
    "read_livecodebench",
    "read_mbpp",
    "read_mbpp_plus",
    "read_primeintellect",
    "read_taco",
]
