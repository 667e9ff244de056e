"""Programs that are wrong on purpose (``tests/attacks``): what they try is in their second line.

Most are right only if their attack works, so that "accepted" is the finding. None may be accepted,
pass for a failure of the sandbox, disturb a right program beside or after it, or leave a process or
a file.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from verl_pipeline.grading import (
    AssertTest,
    CallTest,
    Comparison,
    Problem,
    Result,
    StdinTest,
    Verdict,
    grade,
)
from verl_pipeline.sandbox import Limits, Sandbox
from verl_pipeline.sandbox.prelude import IMPORTS
from verl_pipeline.sandbox.worker import Worker

pytestmark = pytest.mark.timeout(120)

NOT_AS_ROOT = pytest.mark.skipif(
    os.getuid() == 0, reason="refused to root; see test_ordinary_user.py"
)
FOLDER = Path(__file__).parents[1] / "attacks"
# They burden the machine or their sandbox: a right program is graded at the same moment, and right
# after.
BURDENS = ("timeouts", "processes", "exhaustion", "races")
# They leave something for others, or try to: a spy is run on the same worker.
TRACES = ("patching", "reading", "memorised", "races")
SETTLE_S = 10.0
FEWEST, FEWEST_FAMILIES = 60, 12

CHECK_SPLIT = """
def check(given, expected, output):
    left, right = map(int, output.split())
    return left > 0 and right > 0 and left + right == int(given)
"""
CHECK_PAIR = """
def check(given, expected, output):
    return type(output) is list and len(output) == 2 and min(output) > 0 and sum(output) == given[0]
"""
NODE = """
class Node:
    def __init__(self, value, rest=None):
        self.value, self.rest = value, rest

    def __eq__(self, other):
        return type(other) is Node and (self.value, self.rest) == (other.value, other.rest)
"""
CHECK_TWICE = """
def check(candidate):
    assert candidate(2) == 4
    assert candidate(-3) == -6
    assert candidate([1, 2]) == [1, 2, 1, 2]
    assert candidate(10) == 20

check(twice)
"""
CHECK_HALF = """
import numpy as np

def check(candidate):
    for given, wanted in ((3.0, 1.5), (1.0, 0.5)):
        assert np.allclose(candidate(given), wanted, rtol=1e-7, atol=1e-6)

check(half)
"""
CHECK_SQUARES = """
for found, wanted in zip(map(square, [1, 2, 3]), [1, 4, 9]):
    assert found == wanted
"""


def problem(name: str, *tests: StdinTest | CallTest | AssertTest, **more) -> Problem:
    return Problem(name, "attacks", tests, public=1, time_s=1.0, memory_bytes=512 << 20, **more)


# The first test of each is public.
PROBLEMS = {
    made.name: made
    for made in (
        problem(
            "sum",
            StdinTest("1 2 3\n", "6"),
            StdinTest("-5 5 7 100\n", "107"),
            StdinTest("123456 654321\n", "777777"),
            StdinTest("123456789012345678901 1\n", "123456789012345678902"),
        ),
        problem(
            "yes_no", StdinTest("4\n", "YES"), StdinTest("7\n", "NO"), StdinTest("10\n", "YES")
        ),
        problem(
            "names",
            StdinTest("2\nAda\nBea\n", "Ada\nBea"),
            StdinTest("3\nZoë\nCleo\nAda\n", "Ada\nCleo\nZoë"),
            StdinTest("4\nd\nb\nc\na\n", "a\nb\nc\nd"),
        ),
        problem(
            "add",
            CallTest((0, 1), 1),
            CallTest((2, 3), 5),
            CallTest((2**60, 1), 2**60 + 1),
            CallTest((-4, 4), 0),
            entry_point="add",
        ),
        problem(
            "lent",  # the imports in front bring an `add` along
            CallTest((0, 1), 1),
            CallTest((2, 3), 5),
            entry_point="add",
            prelude=IMPORTS,
        ),
        problem(
            "counts",
            CallTest((["b", "a", "b"],), {"a": 1, "b": 2}),
            CallTest((["c"],), {"c": 1}),
            entry_point="count",
        ),
        problem("twice", AssertTest(CHECK_TWICE, ("twice",))),
        problem("half", AssertTest(CHECK_HALF, ("half",))),
        problem("squares", AssertTest(CHECK_SQUARES, ("square",))),
        problem(
            "push",
            AssertTest(
                "assert push(Node(1), 2) == Node(2, Node(1))\nassert push(None, 3) == Node(3)",
                ("push",),
            ),
            prelude=NODE,
        ),
        problem(
            "roots",
            CallTest((1, -3, 2), [1.0, 2.0]),
            CallTest((1, 0, -2), [-(2**0.5), 2**0.5]),
            CallTest((1, -1e8, 1), [1e-8, 1e8]),
            entry_point="roots",
            comparison=Comparison("tolerance", relative=1e-9),
        ),
        problem(
            "mean",
            StdinTest("1 2\n", "1.5"),
            StdinTest("1 1 2\n", "1.3333333333"),
            comparison=Comparison("tolerance", absolute=1e-6, relative=1e-6),
        ),
        problem(
            "factors",
            StdinTest("12\n", "2\n2\n3"),
            StdinTest("105\n", "3\n5\n7"),
            comparison=Comparison("any_order"),
        ),
        problem(
            "split",
            StdinTest("4\n", "1 3"),
            StdinTest("9\n", "4 5"),
            comparison=Comparison("checker", checker=CHECK_SPLIT),
        ),
        problem(
            "pair",
            CallTest((4,), [1, 3]),
            CallTest((9,), [4, 5]),
            entry_point="pair",
            comparison=Comparison("checker", checker=CHECK_PAIR),
        ),
    )
}
RIGHT = {
    "sum": "print(sum(map(int, input().split())))",
    "yes_no": "print('NO' if int(input()) % 2 else 'YES')",
    "names": "print(*sorted(input() for _ in range(int(input()))), sep='\\n')",
    "add": "def add(a, b):\n    return a + b",
    "lent": "def add(a, b):\n    return a + b",
    "counts": "def count(words):\n    return {word: words.count(word) for word in words}",
    "twice": "def twice(x):\n    return 2 * x",
    "half": "def half(x):\n    return x / 2",
    "squares": "def square(x):\n    return x * x",
    "push": "def push(node, value):\n    return Node(value, node)",
    "roots": (
        """
from math import copysign, sqrt

def roots(a, b, c):
    larger = -(b + copysign(sqrt(b * b - 4 * a * c), b)) / 2
    return sorted([larger / a, c / larger])
"""
    ),
    "mean": "numbers = list(map(float, input().split()))\nprint(sum(numbers) / len(numbers))",
    "factors": (
        """
number, factor = int(input()), 2
while number > 1:
    while number % factor == 0:
        print(factor)
        number //= factor
    factor += 1
"""
    ),
    "split": "print(1, int(input()) - 1)",
    "pair": "def pair(n):\n    return [1, n - 1]",
}
# Whatever a program may find of one before it.
SPY = """
import builtins, glob, os, sys

found = [path for folder in ("/tmp", "/dev/shm", "/var/tmp", "/run", ".") for path in glob.glob(folder + "/*")]
found += [name for name in os.listdir("/proc") if name.isdigit() and int(name) not in (1, os.getpid())]
found += [name for name in (*os.environ, *sys.modules, *vars(builtins), *vars(sys)) if "attack" in name.lower()]
for path in ("/proc/net/unix", "/proc/sysvipc/shm", "/proc/sysvipc/msg", "/proc/sysvipc/sem", "/proc/1/comm"):
    with open(path) as file:
        found += [line for line in file if "attack" in line or "sysvipc" in path and line.split()[0].isdigit()]
print(found or "clean")
"""
SPIED = problem("spy", StdinTest("", "clean"), StdinTest("", "clean"))


@dataclass(frozen=True)
class Attack:
    """A file of the corpus."""

    path: Path

    @property
    def name(self) -> str:
        return f"{self.family}/{self.path.stem}"

    @property
    def family(self) -> str:
        return self.path.parent.name

    @property
    def source(self) -> str:
        return self.path.read_text()

    @property
    def words(self) -> list[str]:
        """``problem: <key>``, and ``tier: <tier>`` where it makes sense in one only."""
        return self.source.split("\n", 1)[0].removeprefix("# ").split("; ")

    @property
    def problem(self) -> str:
        return self.words[0].removeprefix("problem: ")


ATTACKS = [Attack(path) for path in sorted(FOLDER.glob("*/*.py"))]


def each(*families: str) -> pytest.MarkDecorator:
    chosen = [attack for attack in ATTACKS if not families or attack.family in families]
    return pytest.mark.parametrize("attack", chosen, ids=[attack.name for attack in chosen])


def skip_elsewhere(attack: Attack, tier: str) -> None:
    """Some attacks make sense in one tier only."""
    if attack.words[1:] not in ([], [f"tier: {tier}"]):
        pytest.skip(f"makes no sense in the tier {tier}")


@pytest.fixture(scope="module", params=["namespaces", pytest.param("rlimits", marks=NOT_AS_ROOT)])
def sandbox(request) -> Iterator[Sandbox]:
    with Sandbox(2, request.param) as made:
        yield made


@pytest.fixture(scope="module")
def lonely() -> Iterator[Sandbox]:
    with Sandbox(1) as made:
        yield made


@pytest.fixture(scope="module")
def table(request) -> Iterator[list[tuple[str, Result]]]:
    rows: list[tuple[str, Result]] = []
    yield rows
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{'attack':44}{'verdict':16}{'tier':12}{'cpu_s':>7}{'wall_s':>8}")
        for name, result in rows:
            print(
                f"{name:44}{result.verdict:16}{result.tier or '':12}{result.cpu_s:7.2f}{result.wall_s:8.2f}"
            )
        print(
            *(
                f"{verdict}: {count}"
                for verdict, count in Counter(row[1].verdict for row in rows).items()
            ),
            sep=", ",
        )


def workers(sandbox: Sandbox) -> set[int]:
    """Process ids of all its workers, started with their supervisors if they are not."""
    with sandbox.worker() as one:
        start_supervisors(one)
        return {one.pid} if sandbox.workers == 1 else {one.pid} | workers_beside(sandbox)


def workers_beside(sandbox: Sandbox) -> set[int]:
    with sandbox.worker() as other:
        start_supervisors(other)
        return {other.pid}


def start_supervisors(worker: Worker) -> None:
    """Of a program, and of the tests beside it."""
    with worker.program("pass") as program, worker.program("pass") as tests:
        assert (program.run(b"", Limits()).exit_code, tests.run(b"", Limits()).exit_code) == (0, 0)


def processes(pids: set[int]) -> set[int]:
    """Everything below the workers, outside of any namespace's view."""
    return {child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True)}


def files() -> set[Path]:
    """What a program or a sandbox might have left on this machine; others work here too."""
    places = (Path(folder) for folder in ("/tmp", "/dev/shm", "/var/tmp", "/run"))
    found = (path for place in places if place.is_dir() for path in place.iterdir())
    return {
        path
        for path in found
        if "attacker" in path.name or path.name.startswith("verl_pipeline_scratch_")
    }


def check_right(problem: Problem, program: str, sandbox: Sandbox) -> None:
    result = grade(problem, program, sandbox)
    assert result.verdict is Verdict.ACCEPTED, result


def check_wrong(result: Result) -> None:
    assert result.verdict not in (Verdict.ACCEPTED, Verdict.INFRASTRUCTURE), result
    assert result.reward == 0.0
    assert len(result.reason) < 500 and result.reason.isprintable(), result.reason[:1000]


def graded_with_company(attack: Attack, sandbox: Sandbox) -> Result:
    """Its result; a right program is graded again and again meanwhile."""
    problem = PROBLEMS[attack.problem]
    with ThreadPoolExecutor(1) as executor:
        attacked = executor.submit(grade, problem, attack.source, sandbox)
        while True:
            check_right(problem, RIGHT[attack.problem], sandbox)
            if attacked.done():
                return attacked.result()


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_right_program_is_accepted(name, sandbox):
    check_right(PROBLEMS[name], RIGHT[name], sandbox)
    assert set(RIGHT) == set(PROBLEMS)


def test_the_corpus_is_complete():
    sizes = Counter(attack.family for attack in ATTACKS)
    assert sum(sizes.values()) >= FEWEST and len(sizes) >= FEWEST_FAMILIES, sizes
    assert {path.name for path in FOLDER.iterdir()} == set(sizes)
    assert all(size >= 3 for size in sizes.values()), sizes
    for attack in ATTACKS:
        assert attack.problem in PROBLEMS, attack.name
        assert attack.words[1:] in ([], ["tier: namespaces"]), attack.name
        assert attack.source.split("\n")[1].startswith("# "), attack.name
        assert not attack.path.stem.startswith("test_") and not attack.path.stem.endswith(
            "_test"
        ), "pytest collects it"


@each()
def test_an_attack_fails_and_leaves_nothing(attack, sandbox, table):
    skip_elsewhere(attack, sandbox.tier)
    problem = PROBLEMS[attack.problem]
    running = workers(sandbox)
    before, files_before = processes(running), files()
    if attack.family in BURDENS:
        result = graded_with_company(attack, sandbox)
    else:
        result = grade(problem, attack.source, sandbox)
    table.append((attack.name, result))
    check_wrong(result)
    with sandbox.worker():  # on both workers, whichever the attack had
        check_right(problem, RIGHT[attack.problem], sandbox)
    check_right(problem, RIGHT[attack.problem], sandbox)
    assert workers(sandbox) == running, "a worker broke"
    deadline = time.monotonic() + SETTLE_S
    while left := processes(running) - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    assert files() <= files_before


@each(*TRACES)
def test_who_comes_next_finds_nothing(attack, lonely):
    skip_elsewhere(attack, lonely.tier)
    (worker,) = workers(lonely)
    check_right(SPIED, SPY, lonely)
    check_wrong(grade(PROBLEMS[attack.problem], attack.source, lonely))
    check_right(SPIED, SPY, lonely)
    check_right(PROBLEMS[attack.problem], RIGHT[attack.problem], lonely)
    assert workers(lonely) == {worker}
