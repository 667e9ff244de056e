"""Draws the inputs of a candidate from its generator, and gives them the form that tests have.

Invariant: the generator runs twice, in fresh processes of two interpreters with different hash
seeds; what depends on chance or on the order of a set is rejected.
"""

import json
from collections import Counter
from typing import Any

from verl_pipeline.grading.program_grader import AnySandbox
from verl_pipeline.grading.readers.case_values import restore_integer_keys
from verl_pipeline.recipes.deepcoder.generation.candidates import Candidate, Rejection
from verl_pipeline.recipes.deepcoder.generation.generation_config import GenerateConfig
from verl_pipeline.recipes.deepcoder.generation.program_runs import (
    Answer,
    Interpreters,
    ProgramInput,
    draw_inputs,
)


def draw_distinct_inputs(
    candidate: Candidate, interpreters: Interpreters, config: GenerateConfig
) -> list[ProgramInput]:
    """Return the distinct inputs that a candidate's generator draws, in order.

    Raises:
        Rejection: it fails, never ends, or draws others the second time.
    """
    seeds = [config.seed * 100_003 + number for number in range(config.tests.draws)]
    drawn, again = (
        _draw_in_time(sandbox, candidate, seeds, config.time.generator_s)
        for sandbox in (interpreters.first, interpreters.second)
    )
    if [answer.value for answer in drawn] != [answer.value for answer in again]:
        raise Rejection("the generator is not deterministic", "two runs with one seed differ")
    inputs: dict[str, ProgramInput] = {}
    failures: Counter[str] = Counter()
    for answer in drawn:
        if answer.failure:
            failures[answer.failure] += 1
            continue
        shaped = shape_input(candidate, answer.value)
        text = json.dumps(shaped)
        if len(text) <= config.tests.characters:
            inputs.setdefault(text, shaped)
        else:
            failures[f"an input of more than {config.tests.characters} characters"] += 1
    if len(inputs) < config.tests.min:
        raise Rejection(
            "the generator gives too few inputs",
            f"{len(inputs)} distinct of {len(seeds)}{describe_failures(failures)}",
        )
    return list(inputs.values())


def _draw_in_time(
    sandbox: AnySandbox, candidate: Candidate, seeds: list[int], time_s: float
) -> list[Answer]:
    drawn = draw_inputs(sandbox, candidate.generator, seeds, time_s)
    if slow := next((answer for answer in drawn if answer.is_slow), None):
        raise Rejection("the generator does not end in time", slow.failure)
    return drawn


def shape_input(candidate: Candidate, value: Any) -> ProgramInput:
    """Turn what a generator returned into arguments, or into text on standard input.

    Raises:
        Rejection: it is neither.
    """
    if isinstance(value, dict) and candidate.parameters:
        names = [name for name in candidate.parameters if name in value]
        needed = candidate.parameters[: len(candidate.parameters) - candidate.optional]
        if (
            len(names) != len(value)
            or names != list(candidate.parameters[: len(names)])
            or not set(needed) <= set(names)
        ):
            raise Rejection("the generator returns other arguments", ", ".join(map(str, value)))
        value = [value[name] for name in names]
    if candidate.entry_point is None:
        if not isinstance(value, str):
            raise Rejection("the generator returns no text", type(value).__name__)
        return value if value.endswith("\n") else f"{value}\n"
    if not isinstance(value, list):
        raise Rejection("the generator returns no arguments", type(value).__name__)
    # As the reader of the tests does, so that the reference sees what the tests hold.
    return tuple(map(restore_integer_keys, value))


def describe_failures(failures: Counter[str]) -> str:
    """Name the most frequent failure, as the end of a detail; empty without any."""
    return "".join(f"; {count} times: {text}" for text, count in failures.most_common(1))
