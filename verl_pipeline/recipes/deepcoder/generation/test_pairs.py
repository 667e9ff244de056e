"""Tests as pairs of input and output: which ones a problem gets, and how they are written.

Invariants:
* No output becomes a test that a right program may miss by a rounding error.
* Tests have different inputs, and only a few of them the same output.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from verl_pipeline.grading import Problem
from verl_pipeline.grading.readers import BadRow, read_problem
from verl_pipeline.recipes.deepcoder.generation.candidates import Candidate, Rejection
from verl_pipeline.recipes.deepcoder.generation.generation_config import TestsConfig
from verl_pipeline.recipes.deepcoder.generation.input_drawing import describe_failures
from verl_pipeline.recipes.deepcoder.generation.output_rounding import is_sensitive_to_rounding
from verl_pipeline.recipes.deepcoder.generation.program_runs import Answer, ProgramInput

# Reader of the tests of generated problems.
READER = "taco"


@dataclass(frozen=True)
class TestPair:
    """An input and the reference's output."""

    input: ProgramInput
    output: Any


def select_tests(
    candidate: Candidate,
    inputs: Sequence[ProgramInput],
    answers: Sequence[Answer],
    config: TestsConfig,
) -> list[TestPair]:
    """Choose tests with different outputs.

    Raises:
        Rejection: there are too few.
    """
    pairs = [TestPair(*pair) for pair in candidate.given]
    known = {json.dumps(pair.input) for pair in pairs}
    counts: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for given, answer in zip(inputs, answers, strict=True):
        output = json.dumps(answer.value)
        if answer.failure:
            failures[answer.failure] += 1
        elif is_sensitive_to_rounding(answer.value):
            failures["an output that a rounding error changes"] += 1
        elif len(output) > config.characters:
            failures[f"an output of more than {config.characters} characters"] += 1
        elif counts[output] >= config.repeats:
            failures["an output that other tests have"] += 1
        elif json.dumps(given) not in known and len(pairs) < config.keep:
            counts[output] += 1
            pairs.append(TestPair(given, answer.value))
    if len(pairs) < config.min:
        raise Rejection(
            "too few tests",
            f"{len(pairs)} of {len(inputs)} inputs{describe_failures(failures)}",
        )
    distinct = len({json.dumps(pair.output) for pair in pairs})
    if distinct < config.distinct:
        raise Rejection("too few different outputs", f"{distinct} in {len(pairs)} tests")
    return pairs


def write_tests(pairs: Sequence[TestPair], entry_point: str | None) -> dict[str, Any]:
    """Return tests as TACO has them."""
    inputs = [pair.input if entry_point is None else list(pair.input) for pair in pairs]
    tests = {"inputs": inputs, "outputs": [pair.output for pair in pairs]}
    return tests if entry_point is None else {**tests, "fn_name": entry_point}


def make_problem(name: str, pairs: Sequence[TestPair], entry_point: str | None) -> Problem:
    """Make the problem that training will grade.

    Raises:
        Rejection: the reader of training data refuses the tests.
    """
    try:
        return read_problem(READER, json.dumps(write_tests(pairs, entry_point)), name=name)
    except BadRow as error:
        raise Rejection("the tests cannot be read", str(error)) from error


def print_pair(pair: TestPair) -> TestPair:
    """Turn a call into lines of JSON on standard input, and one on standard output."""
    lines = "".join(f"{json.dumps(argument)}\n" for argument in pair.input)
    return TestPair(lines, f"{json.dumps(pair.output, sort_keys=True)}\n")
