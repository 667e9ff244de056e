"""Runs programs on inputs in the sandbox and returns what they answer, as JSON values or text.

Invariants:
* Answers cross as text that the jail has made, so this process parses JSON and nothing else.
* An input that a program fails on costs this input; a program that exceeds its time on
  :data:`MAX_TIMEOUTS` inputs is not run on the others.
* A failure of the sandbox is an error, never an answer.
"""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from verl_pipeline.grading.output_comparison import is_matching_text, is_matching_value
from verl_pipeline.grading.program_grader import AnyProgram, AnySandbox
from verl_pipeline.grading.returned_values import decode_returned_value
from verl_pipeline.grading.run_failures import find_failure
from verl_pipeline.grading.verdict import Verdict, VerdictAndReason
from verl_pipeline.sandbox import RunLimits, RunOutcome, SandboxError
from verl_pipeline.sandbox.inside.value_codec import ValueRefused, encode_value
from verl_pipeline.sandbox.prelude import IMPORTS_PRELUDE

MAX_TIMEOUTS = 2
# Seconds in which a program of ours may neither compute nor wait for a CPU.
_PAUSES_S = 1.0
_MAX_OUTPUT_BYTES = 4 << 20
_CALL_DRIVER = """

def answer_as_json(*arguments):
    import json
    target = {name!r}
    function = globals().get(target) or getattr(globals()["Solution"](), target)
    return json.dumps(function(*arguments), sort_keys=True)
"""
_DRAW_DRIVER = """

def draw_as_json(seed):
    import json, random
    return json.dumps(generate_inputs(random.Random(seed)))
"""

# Arguments of a function, or the text on standard input.
ProgramInput = tuple[Any, ...] | str


@dataclass(frozen=True)
class Answer:
    """What a program answered to one input.

    Attributes:
        value: the returned value as JSON has it, or the text on standard output; None if it failed.
        failure: how it failed, in a few words; empty if it did not.
        is_slow: it failed because it took too long.
        cpu_s: CPU seconds, a mean if several inputs shared a process.
    """

    value: Any = None
    failure: str = ""
    is_slow: bool = False
    cpu_s: float = 0.0


@dataclass(frozen=True)
class Interpreters:
    """Two sandboxes whose programs have different hash seeds; the first one's is the grader's."""

    first: AnySandbox
    second: AnySandbox


def answer_inputs(
    sandbox: AnySandbox,
    program: str,
    entry_point: str | None,
    inputs: Sequence[ProgramInput],
    time_s: float,
) -> list[Answer]:
    """Run a program on each input; the answers are in the same order.

    Args:
        entry_point: function, or method of ``class Solution``; None: the program reads standard
            input.
        time_s: CPU seconds for each input, and for all calls that share a process.

    Raises:
        SandboxError: the sandbox failed.
    """
    limits = RunLimits(cpu_s=time_s, pauses_s=_PAUSES_S, output_bytes=_MAX_OUTPUT_BYTES)
    if entry_point is not None:
        driver = _CALL_DRIVER.format(name=entry_point)
        return _call_each(sandbox, program + driver, "answer_as_json", inputs, limits)
    return _try_twice(lambda: _run_each(sandbox, program, inputs, limits))


def _run_each(
    sandbox: AnySandbox, program: str, inputs: Sequence[ProgramInput], limits: RunLimits
) -> list[Answer]:
    answers: list[Answer] = []
    with (
        sandbox.lend_worker() as worker,
        worker.load_program(program, IMPORTS_PRELUDE) as loaded,
    ):
        for text in inputs:
            if sum(answer.is_slow for answer in answers) >= MAX_TIMEOUTS:
                answers.append(_NOT_RUN)
                continue
            outcome = loaded.run(str(text).encode(), limits)
            failure = find_failure(outcome)
            if failure:
                answers.append(_make_failed(failure))
            else:
                output = outcome.stdout.decode(errors="replace")
                answers.append(Answer(output, cpu_s=outcome.cpu_s))
    return answers


def answers_alike(
    sandbox: AnySandbox,
    program: str,
    entry_point: str | None,
    inputs: Sequence[ProgramInput],
    outputs: Sequence[Any],
    time_s: float,
) -> bool:
    """Whether a program answers every input with its output, by the grader's rules.

    All calls share a process and end with the first that fails, so that a wrong program costs
    little. A program that answers otherwise when calls share a process counts as wrong.

    Args:
        time_s: CPU seconds for all inputs together.

    Raises:
        SandboxError: the sandbox failed.
    """
    limits = RunLimits(cpu_s=time_s, pauses_s=_PAUSES_S, output_bytes=_MAX_OUTPUT_BYTES)
    if entry_point is None:
        for text, output in zip(inputs, outputs, strict=True):
            [answer] = _try_twice(functools.partial(_run_each, sandbox, program, [text], limits))
            if answer.failure or not is_matching_text(answer.value, output):
                return False
        return True
    driver = _CALL_DRIVER.format(name=entry_point)
    arguments = [encode_value(tuple(one)) for one in inputs]
    answers = _try_twice(
        lambda: _call_together(sandbox, program + driver, "answer_as_json", arguments, limits)
    )
    return len(answers) == len(outputs) and all(
        not answer.failure and is_matching_value(answer.value, output)
        for answer, output in zip(answers, outputs, strict=True)
    )


def draw_inputs(
    sandbox: AnySandbox, generator: str, seeds: Sequence[int], time_s: float
) -> list[Answer]:
    """Call ``generate_inputs(random.Random(seed))`` of a program for each seed.

    Args:
        time_s: CPU seconds for each seed, and for all that share a process.

    Raises:
        SandboxError: the sandbox failed.
    """
    limits = RunLimits(cpu_s=time_s, pauses_s=_PAUSES_S, output_bytes=_MAX_OUTPUT_BYTES)
    inputs = [(seed,) for seed in seeds]
    return _call_each(sandbox, generator + _DRAW_DRIVER, "draw_as_json", inputs, limits)


def _try_twice(run: Callable[[], list[Answer]]) -> list[Answer]:
    """Run again, on another worker, if the sandbox fails: as the grader does."""
    try:
        return run()
    except (SandboxError, OSError):
        return run()


def _call_each(
    sandbox: AnySandbox,
    program: str,
    function: str,
    inputs: Sequence[ProgramInput],
    limits: RunLimits,
) -> list[Answer]:
    """Call a function that returns JSON text: all inputs in one process, or else one by one."""
    arguments: list[str] = []
    try:
        arguments = [encode_value(tuple(one)) for one in inputs]
    except ValueRefused as error:
        return [Answer(failure=f"the input cannot cross: {error}") for _ in inputs]
    return _try_twice(lambda: _call_all(sandbox, program, function, arguments, limits))


def _call_all(
    sandbox: AnySandbox,
    program: str,
    function: str,
    arguments: Sequence[str],
    limits: RunLimits,
) -> list[Answer]:
    answers = _call_together(sandbox, program, function, arguments, limits)
    if len(answers) == len(arguments):
        return answers
    with (
        sandbox.lend_worker() as worker,
        worker.load_program(program, IMPORTS_PRELUDE) as loaded,
    ):
        return _call_one_by_one(loaded, function, arguments, limits)


def _call_together(
    sandbox: AnySandbox,
    program: str,
    function: str,
    arguments: Sequence[str],
    limits: RunLimits,
) -> list[Answer]:
    """Make all calls in one process; return no answer if one of them fails."""
    with (
        sandbox.lend_worker() as worker,
        worker.load_program(program, IMPORTS_PRELUDE) as loaded,
    ):
        outcome = loaded.call_function(function, arguments, limits)
    if find_failure(outcome):
        return []
    answers = _read_lines(outcome, len(arguments))
    return answers if len(answers) == len(arguments) else []


def _call_one_by_one(
    loaded: AnyProgram, function: str, arguments: Sequence[str], limits: RunLimits
) -> list[Answer]:
    answers: list[Answer] = []
    for argument in arguments:
        if sum(answer.is_slow for answer in answers) >= MAX_TIMEOUTS:
            answers.append(_NOT_RUN)
            continue
        outcome = loaded.call_function(function, [argument], limits)
        if failure := find_failure(outcome):
            answers.append(_make_failed(failure))
        else:
            answers += _read_lines(outcome, 1) or [Answer(failure="returned nothing")]
    return answers


def _read_lines(outcome: RunOutcome, number: int) -> list[Answer]:
    lines = outcome.result.split(b"\n")[:-1][:number]
    return [replace(_read_json(line), cpu_s=outcome.cpu_s / max(1, len(lines))) for line in lines]


def _read_json(line: bytes) -> Answer:
    try:
        text = decode_returned_value(line, "x" * len(line))
        if not isinstance(text, str):
            return Answer(failure="no JSON text")
        return Answer(json.loads(text, parse_constant=_refuse_constant))
    except (ValueError, RecursionError) as error:
        return Answer(failure=f"no value of JSON: {' '.join(str(error).split())[:100]}")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not finite")


def _make_failed(failure: VerdictAndReason) -> Answer:
    verdict, reason = failure
    return Answer(failure=f"{verdict}: {reason}"[:200], is_slow=verdict is Verdict.TIME_LIMIT)


_NOT_RUN = Answer(failure="not run: too slow on other inputs")
