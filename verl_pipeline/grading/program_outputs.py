"""What a program does on inputs without expected outputs; it judges nothing.

Invariant: equal values give equal texts, in whatever order a program filled its sets.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from verl_pipeline.grading.problem import Problem
from verl_pipeline.grading.run_failures import find_failure
from verl_pipeline.sandbox import RemoteSandbox, RunLimits, RunOutcome, Sandbox
from verl_pipeline.sandbox.inside import value_codec


def run_inputs(
    problem: Problem,
    program: str,
    entry_point: str | None,
    inputs: Sequence[Any],
    cpu_s: float,
    sandbox: Sandbox | RemoteSandbox,
) -> list[str | None]:
    """Return the output of ``program`` on each input; None where it fails.

    Args:
        problem: its prelude and limit of memory apply; its tests have no part.
        entry_point: function to call; None: the inputs are texts for standard input.
        inputs: texts, or tuples of positional arguments.
        cpu_s: CPU seconds for each input.

    Raises:
        SandboxError: the sandbox failed.
        OSError: as SandboxError.
    """
    limits = RunLimits(cpu_s=cpu_s, memory_bytes=problem.memory_bytes)
    with (
        sandbox.lend_worker() as worker,
        worker.load_program(program, problem.prelude) as loaded,
    ):
        if entry_point is None:
            return [_read_stdout(loaded.run(text.encode(), limits)) for text in inputs]
        calls = [value_codec.encode_value(arguments) for arguments in inputs]
        # One process for all: most programs need less time than the start of one.
        outcome = loaded.call_function(entry_point, calls, replace(limits, pauses_s=0.0))
        if find_failure(outcome) is None and outcome.result.count(b"\n") == len(calls):
            return [_sort_sets(line) for line in outcome.result.split(b"\n")[:-1]]
        return [_read_result(loaded.call_function(entry_point, [call], limits)) for call in calls]


def _read_stdout(outcome: RunOutcome) -> str | None:
    if find_failure(outcome):
        return None
    text = outcome.stdout.decode(errors="replace")
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _read_result(outcome: RunOutcome) -> str | None:
    return None if find_failure(outcome) else _sort_sets(outcome.result.strip())


def _sort_sets(line: bytes) -> str:
    """Return an encoded value with the plain members of its sets in order."""
    text = line.decode(errors="replace")
    try:
        parts = json.loads(text)
    except ValueError:
        return text
    for part in parts if isinstance(parts, list) else ():
        is_set = isinstance(part, list) and len(part) > 1 and part[0] in ("s", "f")
        if is_set and isinstance(part[1], list):
            part[1] = sorted(part[1], key=repr)
    return json.dumps(parts)
