"""Readers: one function a source, from a row as the source publishes it to a :class:`Problem`.

Invariants:
* A row that cannot be read is a :class:`BadRow` that says what is wrong, never a problem with fewer
  tests.
* No test is chosen or dropped here, and no name of a function is lost.
"""

from collections.abc import Callable

from verl_pipeline.grading.problem import Problem
from verl_pipeline.grading.readers.asserts import (
    read_humaneval,
    read_kodcode,
    read_leetcode,
    read_mbpp,
    read_mbpp_plus,
)
from verl_pipeline.grading.readers.errors import BadRow
from verl_pipeline.grading.readers.livecodebench import read_livecodebench
from verl_pipeline.grading.readers.pairs import read_codeforces, read_primeintellect, read_taco

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
