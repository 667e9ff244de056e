"""What grading costs: ours at full isolation, verl's ``prime_code``, and a plain ``python3 -I`` for
each test.

``python -m benchmarks.grading [--quick] [--output results.json]``, from the repository's folder;
about 10 minutes on two idle cores, 2 with ``--quick``.

Four mixes of right and wrong programs (``failing early``: wrong on the first of 15 tests). All
graders get as many programs at a time as there are cores, from a process that has imported neither
torch nor verl's trainers.

Invariants:
* A grader that calls a right program wrong, or a wrong one right, ends the benchmark: a fast wrong
  answer is none.
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

from benchmarks.common import estimate_ratio, print_table, summarize_spread, write_report
from verl_pipeline.grading import Problem, Verdict, grade
from verl_pipeline.grading.readers import read_taco
from verl_pipeline.sandbox import Sandbox

OURS, PRIME_CODE, PLAIN = "ours", "prime_code", "plain process a test"
GRADERS = (OURS, PRIME_CODE, PLAIN)
_STDIN = "import sys\nnumbers = list(map(int, sys.stdin.read().split()))\nprint({answer})\n"
_PRINT_CALL = "\nimport json, sys\nprint(json.dumps({name}(json.load(sys.stdin))))"
# The system's, which starts fastest; never a shim.
_PLAIN_PYTHON = (
    "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else os.path.realpath(sys.executable)
)
_CALL = "def total(numbers):\n    return {answer}\n"


@dataclass(frozen=True)
class Mix:
    """Programs alike but for a comment, so that nothing is cached; ``right`` says what they are."""

    name: str
    tests: dict[str, Any]
    program: str
    right: bool


def mixes() -> list[Mix]:
    """The four mixes of this benchmark."""
    numbers = [list(range(n, n + 50)) for n in range(15)]
    stdin = {
        "inputs": [" ".join(map(str, values)) + "\n" for values in numbers],
        "outputs": [f"{sum(values)}\n" for values in numbers],
    }
    # As in PRIME's data: a line of JSON for each argument, the output as JSON.
    texts = {
        "inputs": [json.dumps(values) for values in numbers],
        "outputs": [json.dumps(sum(v)) for v in numbers],
    }
    calls = {"fn_name": "total", **texts}
    first = {key: values[:1] for key, values in stdin.items()}
    return [
        Mix("one stdin test", first, _STDIN.format(answer="sum(numbers)"), True),
        Mix("15 stdin tests", stdin, _STDIN.format(answer="sum(numbers)"), True),
        Mix("15 call tests", calls, _CALL.format(answer="sum(numbers)"), True),
        Mix("failing early", stdin, _STDIN.format(answer="max(numbers)"), False),
    ]


@dataclass(frozen=True)
class Graded:
    """One program: the verdict, seconds, and CPU seconds of the program itself where the grader
    knows them.
    """

    right: bool
    seconds: float
    cpu_s: float | None = None


def prime_code(tests: dict[str, Any], program: str) -> Graded:
    """verl 0.9.1's grader, as its reward loop calls it."""
    from verl.utils.reward_score.prime_code import compute_score

    begin = time.perf_counter()
    score, _metadata = compute_score(program, tests, continuous=True)
    return Graded(score == 1.0, time.perf_counter() - begin)


def plain(tests: dict[str, Any], program: str) -> Graded:
    """A new interpreter for each test, no isolation, the comparison outside; stops at the first
    wrong answer.
    """
    begin = time.perf_counter()
    right = True
    for given, wanted in zip(tests["inputs"], tests["outputs"], strict=True):
        call = _PRINT_CALL.format(name=tests["fn_name"]) if "fn_name" in tests else ""
        command = [_PLAIN_PYTHON, "-I", "-c", program + call]
        run = subprocess.run(command, input=given, capture_output=True, text=True, timeout=30)
        if run.stdout.strip() != wanted.strip():
            right = False
            break
    return Graded(right, time.perf_counter() - begin)


def ours(sandbox: Sandbox, problem: Problem, program: str) -> Graded:
    """This project's."""
    begin = time.perf_counter()
    result = grade(problem, program, sandbox)
    if result.verdict is Verdict.INFRASTRUCTURE:
        raise RuntimeError(f"the sandbox failed: {result.reason}")
    return Graded(result.verdict is Verdict.ACCEPTED, time.perf_counter() - begin, result.cpu_s)


def _as_in_a_worker_of_ray() -> None:
    """prime_code starts its processes in the default way, which a spawned process has inherited as
    "spawn".
    """
    set_start_method("fork", force=True)


Submit = Callable[[Mix, str], Any]


@contextmanager
def graders(cores: int) -> Iterator[dict[str, Submit]]:
    """By name, what submits a program and gives its future."""
    context = get_context("spawn")
    with (
        Sandbox(cores) as sandbox,
        ThreadPoolExecutor(cores) as threads,
        ProcessPoolExecutor(cores, context, _as_in_a_worker_of_ray) as prime,
        ThreadPoolExecutor(cores) as processes,
    ):
        problems = {mix.name: read_taco(mix.tests, name=mix.name) for mix in mixes()}
        yield {
            OURS: lambda mix, program: threads.submit(ours, sandbox, problems[mix.name], program),
            PRIME_CODE: lambda mix, program: prime.submit(prime_code, mix.tests, program),
            PLAIN: lambda mix, program: processes.submit(plain, mix.tests, program),
        }


def measure(submit: Submit, mix: Mix, count: int, nonce: int) -> dict[str, Any]:
    """``count`` programs at once; programs/s of all, and each one's seconds.

    Raises:
        RuntimeError: a verdict was wrong.
    """
    begin = time.perf_counter()
    futures = [submit(mix, f"# {nonce} {index}\n{mix.program}") for index in range(count)]
    found: list[Graded] = [future.result() for future in futures]
    seconds = time.perf_counter() - begin
    if any(graded.right is not mix.right for graded in found):
        raise RuntimeError(f"{mix.name}: a wrong verdict")
    result = {
        "seconds": seconds,
        "programs_per_s": count / seconds,
        "latencies_s": [graded.seconds for graded in found],
    }
    if found[0].cpu_s is not None:
        result["overheads_s"] = [
            graded.seconds - graded.cpu_s for graded in found if graded.cpu_s is not None
        ]
    return result


def summary(
    mix: Mix, grader: str, rounds: list[dict[str, Any]], baseline: list[dict[str, Any]]
) -> dict[str, Any]:
    """Medians over rounds, quantiles over all programs, and the ratio to ``prime_code``."""
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


def row(result: dict[str, Any]) -> dict[str, Any]:
    """A result as a line of the table."""
    ratio = result["over_prime_code"]
    interval = "" if ratio["low"] is None else f" [{ratio['low']:.1f}, {ratio['high']:.1f}]"
    rate = result["programs_per_s"]
    return {
        "mix": result["mix"],
        "grader": result["grader"],
        "programs/s": f"{rate['median']:.1f} ({rate['min']:.1f} to {rate['max']:.1f})",
        "p50 ms": f"{result['latency_p50_s'] * 1e3:.1f}",
        "p95 ms": f"{result['latency_p95_s'] * 1e3:.1f}",
        "overhead ms": ""
        if result["overhead_s"] is None
        else f"{result['overhead_s']['median'] * 1e3:.1f}",
        "over prime_code": f"{ratio['ratio']:.1f}{interval}",
    }


def further_test_s(results: list[dict[str, Any]]) -> float:
    """Ours: what 14 more stdin tests add to the median overhead, in seconds for each."""
    medians = {
        result["mix"]: result["overhead_s"]["median"]
        for result in results
        if result["grader"] == OURS
    }
    return (medians["15 stdin tests"] - medians["one stdin test"]) / 14


def children_mb() -> float:
    """Resident memory of all processes below this one, in 1e6 bytes."""
    return (
        sum(process.memory_info().rss for process in psutil.Process().children(recursive=True))
        / 1e6
    )


def main(
    quick: Annotated[bool, typer.Option(help="3 rounds of few programs.")] = False,
    output: Annotated[Path, typer.Option(help="Results as JSON.")] = Path("outputs/grading.json"),
) -> None:
    """Measure every grader on every mix, in turns, and report."""
    cores = len(os.sched_getaffinity(0))
    rounds, count = (3, 10 * cores) if quick else (7, 25 * cores)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with graders(cores) as submits:
        memory: dict[str, float] = {}
        for name, submit in submits.items():
            before = children_mb()
            for mix in mixes():
                measure(submit, mix, cores, -1)  # starts what is started once
            memory[name] = children_mb() - before
        turns = [(n, mix, name) for n in range(rounds) for mix in mixes() for name in GRADERS]
        for number, mix, name in track(turns, "grading"):
            found.setdefault((mix.name, name), []).append(
                measure(submits[name], mix, count, number)
            )
    results = [
        summary(mix, name, found[mix.name, name], found[mix.name, PRIME_CODE])
        for mix in mixes()
        for name in GRADERS
    ]
    further_s = further_test_s(results)
    report = {
        "cores": cores,
        "programs": count,
        # Resident, of the processes that a grader keeps between programs; pages they share count
        # for each.
        "memory_mb": memory,
        "overhead_of_a_further_test_s": further_s,
        "results": results,
        "rounds": {f"{mix}, {name}": values for (mix, name), values in found.items()},
    }
    write_report(output, "grading", {"quick": quick}, report)
    rows = [row(result) for result in results]
    print_table(rows, list(rows[0]))
    print(f"a further stdin test: {further_s * 1e3:.1f} ms; memory kept, MB: {memory}")


if __name__ == "__main__":
    typer.run(main)
