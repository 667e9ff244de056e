"""What we say of a pytest file and a program is what plain pytest says in one process."""

import json

import pytest

from tests.helpers.generated_pytest_files import make_pytest_file
from tests.helpers.pytest_rows import ROWS
from verl_pipeline.grading import Verdict, grade
from verl_pipeline.grading.readers import BadRow, read_kodcode
from verl_pipeline.sandbox import RunLimits

pytestmark = [pytest.mark.timeout(300), pytest.mark.medium]
# Runs pytest on each pair of tests and program, and prints whether all is well: something passed
# and nothing failed. It runs in the sandbox too, as one program.
RUNS_PYTEST = """
import json, os, sys
import pytest

class Recorder:
    passed = 0

    def pytest_runtest_logreport(self, report):
        self.passed += report.when == "call" and report.passed and not hasattr(report, "wasxfail")

def run_pytest(folder, tests, program):
    os.mkdir(folder)
    os.chdir(folder)
    sys.path.insert(0, os.getcwd())
    for name, text in (("test_row.py", tests), ("solution.py", program)):
        with open(name, "w") as file:
            file.write(text)
    recorder = Recorder()
    options = ["-x", "-p", "no:terminal", "-p", "no:cacheprovider", "-c", "/dev/null"]
    status = pytest.main([*options, "--rootdir=.", "test_row.py"], plugins=[recorder])
    return status == 0 and recorder.passed > 0

for number, pair in enumerate(json.load(sys.stdin)):
    pid = os.fork()
    if pid == 0:
        is_well = False
        try:
            is_well = run_pytest(f"row{number}", *pair)
        finally:
            os._exit(0 if is_well else 1)
    print(int(os.waitpid(pid, 0)[1] == 0))
"""


def run_plain_pytest(sandbox, pairs: list[tuple[str, str]]) -> list[bool]:
    with sandbox.lend_worker() as worker, worker.load_program(RUNS_PYTEST) as program:
        outcome = program.run(json.dumps(pairs).encode(), RunLimits(cpu_s=120.0))
    assert outcome.exit_code == 0, outcome
    return [line == b"1" for line in outcome.stdout.split()]


def list_accepted_files(count: int) -> list[str]:
    accepted = []
    seed = 100_000  # none of those that are only collected
    while len(accepted) < count:
        source = make_pytest_file(seed)
        seed += 1
        try:
            read_kodcode(source, name="generated")
        except BadRow:
            continue
        accepted.append(source)
    return accepted


@pytest.mark.parametrize(
    ("stride", "generated"),
    [pytest.param(4, 15, id="few"), pytest.param(1, 60, id="all", marks=pytest.mark.slow)],
)
def test_the_verdicts_are_those_of_plain_pytest(sandbox, stride, generated):
    rows = list(ROWS.values())[::stride]
    pairs = [(row.tests, program) for row in rows for program in (row.right, row.wrong)]
    pairs += [(source, "def f():\n    pass\n") for source in list_accepted_files(generated)]
    expected = run_plain_pytest(sandbox, pairs)
    assert len(expected) == len(pairs) and 0.3 < sum(expected) / len(pairs) < 0.9
    unlike = []
    for (tests, program), is_right in zip(pairs, expected, strict=True):
        result = grade(read_kodcode(tests, name="row", time_s=4.0), program, sandbox)
        if (result.verdict is Verdict.ACCEPTED) != is_right or result.reward is None:
            unlike.append((tests, program, result))
    assert not unlike
