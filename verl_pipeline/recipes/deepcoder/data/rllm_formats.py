"""Reads the rows of rLLM's copies of the data sets (``problem``, ``tests``), which keep no ids."""

import re

from verl_pipeline.evaluation.data import Row
from verl_pipeline.grading.program_extraction import extract_last_program
from verl_pipeline.recipes.deepcoder.data.row_formats import RawProblem, list_programs

_LEETCODE_PROMPT = re.compile(
    r"^(?:Please solve the programming task below[^\n]*\n+)?(?P<question>.*?)\n+"
    r"Please complete the following python code precisely:\n```python\n(?P<starter>.*?)\n?```\s*$",
    re.DOTALL,
)


def read_rllm(row: Row) -> RawProblem:
    """Read a row of any data set without a function of its own here."""
    return RawProblem(
        question=row["problem"],
        tests=row["tests"],
        solutions=list_programs(row.get("solutions")),
        starter=row.get("starter_code") or "",
        difficulty=str(row.get("difficulty") or ""),
    )


def read_rllm_primeintellect(row: Row) -> RawProblem:
    """Read a row of PrimeIntellect, whose solutions may be answers with code blocks."""
    raw = read_rllm(row)
    programs = [extract_last_program(text) or text for text in raw.solutions]
    return RawProblem(
        question=raw.question, tests=raw.tests, solutions=programs, language=row.get("language")
    )


def read_rllm_leetcode(row: Row) -> RawProblem:
    """Read a row of LeetCode, whose problem text ends with the starter code."""
    raw, parts = read_rllm(row), _LEETCODE_PROMPT.match(row["problem"])
    question, starter = (
        (parts["question"], parts["starter"]) if parts else (raw.question, raw.starter)
    )
    return RawProblem(
        question=question,
        tests=raw.tests,
        solutions=raw.solutions,
        starter=starter,
        difficulty=raw.difficulty,
    )
