"""Speed of grading: ours with full isolation, verl's ``prime_code``, and plain ``python3 -I``.

``python -m benchmarks.grading [--quick] [--output results.json]``, from the repository's folder;
about 15 minutes on two idle cores, 5 with ``--quick``. The plain grader starts a process a test.

All graders get as many programs at a time as there are cores, from a process that has imported
neither torch nor verl's trainers.

Invariants:
* If a grader rejects a right program or accepts a wrong one, the benchmark fails: the speed of
  wrong verdicts says nothing.
* The graders take turns, round by round, on the same programs.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.progress import track

from benchmarks.common import (
    ReportOption,
    estimate_ratio,
    format_ratio,
    print_table,
    summarize_spread,
    write_report,
)
from benchmarks.quiet_machine import wait_until_quiet
from verl_pipeline.grading import Problem, Verdict, grade
from verl_pipeline.grading.readers import read_taco
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.sandbox import Sandbox

OURS, PRIME_CODE, PLAIN = "ours", "prime_code", "plain process a test"
GRADERS = (OURS, PRIME_CODE, PLAIN)
_STDIN_PROGRAM = "import sys\nnumbers = list(map(int, sys.stdin.read().split()))\nprint({answer})\n"
_PRINT_CALL_CODE = "\nimport json, sys\nprint(json.dumps({name}(json.load(sys.stdin))))"
# The system's interpreter starts fastest. A shim of a version manager would add its own time.
_PLAIN_PYTHON = (
    "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else os.path.realpath(sys.executable)
)
_CALL_PROGRAM = "def total(numbers):\n    return {answer}\n"


@dataclass(frozen=True)
class ProgramMix:
    """Programs that differ in a comment only, so that no result can be cached.

    Attributes:
        name: of the mix.
        tests: in TACO's format.
        program: source without the comment.
        is_right: whether the programs pass all tests.
    """

    name: str
    tests: dict[str, Any]
    program: str
    is_right: bool


def build_mixes() -> list[ProgramMix]:
    """Return the four mixes of this benchmark."""
    numbers = [list(range(n, n + 50)) for n in range(15)]
    stdin = {
        "inputs": [" ".join(map(str, values)) + "\n" for values in numbers],
        "outputs": [f"{sum(values)}\n" for values in numbers],
    }
    # As in PRIME's data: a line of JSON for each argument, the output as JSON.
    json_pairs = {
        "inputs": [json.dumps(values) for values in numbers],
        "outputs": [json.dumps(sum(v)) for v in numbers],
    }
    calls = {"fn_name": "total", **json_pairs}
    first_pair = {key: values[:1] for key, values in stdin.items()}
    return [
        ProgramMix(
            "one stdin test", first_pair, _STDIN_PROGRAM.format(answer="sum(numbers)"), True
        ),
        ProgramMix("15 stdin tests", stdin, _STDIN_PROGRAM.format(answer="sum(numbers)"), True),
        ProgramMix("15 call tests", calls, _CALL_PROGRAM.format(answer="sum(numbers)"), True),
        ProgramMix("failing early", stdin, _STDIN_PROGRAM.format(answer="max(numbers)"), False),
    ]


@dataclass(frozen=True)
class GradedProgram:
    """Verdict and time of one program.

    Attributes:
        is_accepted: whether the grader accepted it.
        seconds: wall-clock time of the grading.
        cpu_s: CPU seconds of the program itself, where the grader measures them.
    """

    is_accepted: bool
    seconds: float
    cpu_s: float | None = None


def grade_with_prime_code(tests: dict[str, Any], program: str) -> GradedProgram:
    """Grade with verl 0.9.1's grader, called as its reward loop does."""
    from verl.utils.reward_score.prime_code import compute_score

    begin = time.perf_counter()
    score, _metadata = compute_score(program, tests, continuous=True)
    return GradedProgram(score == 1.0, time.perf_counter() - begin)


def grade_with_plain_python(tests: dict[str, Any], program: str) -> GradedProgram:
    """Start a new interpreter for each test, without isolation; stop at the first wrong answer."""
    begin = time.perf_counter()
    is_accepted = True
    for stdin, expected in zip(tests["inputs"], tests["outputs"], strict=True):
        call = _PRINT_CALL_CODE.format(name=tests["fn_name"]) if "fn_name" in tests else ""
        command = [_PLAIN_PYTHON, "-I", "-c", program + call]
        run = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30)
        if run.stdout.strip() != expected.strip():
            is_accepted = False
            break
    return GradedProgram(is_accepted, time.perf_counter() - begin)


def grade_with_ours(sandbox: Sandbox, problem: Problem, program: str) -> GradedProgram:
    """Grade with this project's grader."""
    begin = time.perf_counter()
    result = grade(problem, program, sandbox)
    if result.verdict is Verdict.INFRASTRUCTURE:
        raise RuntimeError(f"the sandbox failed: {result.reason}")
    return GradedProgram(
        result.verdict is Verdict.ACCEPTED, time.perf_counter() - begin, result.cpu_s
    )


def _set_fork_start_method() -> None:
    """Let prime_code fork its processes, as it does in Ray's workers.

    It uses the default start method, which a spawned process inherits as "spawn".
    """
    set_start_method("fork", force=True)


SubmitProgram = Callable[[ProgramMix, str], Any]


@contextmanager
def start_graders(cores: int) -> Iterator[dict[str, SubmitProgram]]:
    """Yield, by name of the grader, a function that submits a program and returns its future."""
    context = get_context("spawn")
    with (
        Sandbox(cores) as sandbox,
        ThreadPoolExecutor(cores) as threads,
        ProcessPoolExecutor(cores, context, _set_fork_start_method) as prime,
        ThreadPoolExecutor(cores) as processes,
    ):
        problems = {mix.name: read_taco(mix.tests, name=mix.name) for mix in build_mixes()}
        yield {
            OURS: lambda mix, program: threads.submit(
                grade_with_ours, sandbox, problems[mix.name], program
            ),
            PRIME_CODE: lambda mix, program: prime.submit(
                grade_with_prime_code, mix.tests, program
            ),
            PLAIN: lambda mix, program: processes.submit(
                grade_with_plain_python, mix.tests, program
            ),
        }


def measure_round(submit: SubmitProgram, mix: ProgramMix, count: int, nonce: int) -> dict[str, Any]:
    """Submit ``count`` programs at once; return programs/s and the seconds of each program.

    Raises:
        RuntimeError: a verdict was wrong.
    """
    begin = time.perf_counter()
    futures = [submit(mix, f"# {nonce} {index}\n{mix.program}") for index in range(count)]
    graded_programs: list[GradedProgram] = [future.result() for future in futures]
    seconds = time.perf_counter() - begin
    if any(graded.is_accepted is not mix.is_right for graded in graded_programs):
        raise RuntimeError(f"{mix.name}: a wrong verdict")
    result = {
        "seconds": seconds,
        "programs_per_s": count / seconds,
        "latencies_s": [graded.seconds for graded in graded_programs],
    }
    if graded_programs[0].cpu_s is not None:
        result["overheads_s"] = [
            graded.seconds - graded.cpu_s for graded in graded_programs if graded.cpu_s is not None
        ]
    return result


def summarize_rounds(
    mix: ProgramMix, grader: str, rounds: list[dict[str, Any]], baseline: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return medians over rounds, quantiles over all programs, and the ratio to ``prime_code``."""
    latencies = sorted(value for round in rounds for value in round["latencies_s"])
    rates = [round["programs_per_s"] for round in rounds]
    return {
        "mix": mix.name,
        "grader": grader,
        "programs_per_s": summarize_spread(rates),
        "latency_p50_s": latencies[len(latencies) // 2],
        "latency_p95_s": latencies[int(len(latencies) * 0.95)],
        "over_prime_code": estimate_ratio(
            rates, [round["programs_per_s"] for round in baseline], paired=True
        ),
        "overhead_s": summarize_spread([v for round in rounds for v in round["overheads_s"]])
        if "overheads_s" in rounds[0]
        else None,
    }


def make_row(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result as a row of the table."""
    rate = result["programs_per_s"]
    median, low, high = (format_decimal(rate[key]) for key in ("median", "min", "max"))
    return {
        "mix": result["mix"],
        "grader": result["grader"],
        "programs/s": f"{median} ({low} to {high})",
        "p50 ms": format_decimal(result["latency_p50_s"] * 1e3),
        "p95 ms": format_decimal(result["latency_p95_s"] * 1e3),
        "overhead ms": ""
        if result["overhead_s"] is None
        else format_decimal(result["overhead_s"]["median"] * 1e3),
        "over prime_code": format_ratio(result["over_prime_code"], 1),
    }


def compute_further_test_s(results: list[dict[str, Any]]) -> float:
    """Return the seconds that each of 14 more stdin tests adds to our median overhead."""
    medians = {
        result["mix"]: result["overhead_s"]["median"]
        for result in results
        if result["grader"] == OURS
    }
    return (medians["15 stdin tests"] - medians["one stdin test"]) / 14


def measure_children_mb() -> float:
    """Return the resident memory of all processes below this one, in 1e6 bytes."""
    children = psutil.Process().children(recursive=True)
    return sum(process.memory_info().rss for process in children) / 1e6


def main(
    quick: Annotated[bool, typer.Option(help="3 rounds of few programs.")] = False,
    output: ReportOption = Path("outputs/grading.json"),
) -> None:
    """Measure every grader on every mix, in turns, and report."""
    cores = len(os.sched_getaffinity(0))
    rounds, count = (3, 10 * cores) if quick else (7, 25 * cores)
    rounds_by_grader: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with start_graders(cores) as submit_functions:
        memory: dict[str, float] = {}
        for name, submit in submit_functions.items():
            before = measure_children_mb()
            for mix in build_mixes():
                measure_round(submit, mix, cores, -1)  # starts the grader's processes
            memory[name] = measure_children_mb() - before
        turns = [(n, mix, name) for n in range(rounds) for mix in build_mixes() for name in GRADERS]
        wait_until_quiet()  # once: the first programs after a pause take longer
        for number, mix, name in track(turns, "grading"):
            rounds_by_grader.setdefault((mix.name, name), []).append(
                measure_round(submit_functions[name], mix, count, number)
            )
    results = [
        summarize_rounds(
            mix, name, rounds_by_grader[mix.name, name], rounds_by_grader[mix.name, PRIME_CODE]
        )
        for mix in build_mixes()
        for name in GRADERS
    ]
    further_s = compute_further_test_s(results)
    report = {
        "cores": cores,
        "programs": count,
        # Resident memory of the processes that a grader keeps between programs; a page that several
        # of them share counts for each.
        "memory_mb": memory,
        "overhead_of_a_further_test_s": further_s,
        "results": results,
        "rounds": {f"{mix}, {name}": values for (mix, name), values in rounds_by_grader.items()},
    }
    write_report(output, "grading", {"quick": quick}, report)
    rows = [make_row(result) for result in results]
    print_table(rows, list(rows[0]))
    print(f"a further stdin test: {format_decimal(further_s * 1e3)} ms; memory kept, MB: {memory}")


if __name__ == "__main__":
    typer.run(main)
