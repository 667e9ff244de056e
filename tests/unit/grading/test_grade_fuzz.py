"""`verl-pipeline grade` with broken files, broken lines and broken arguments."""

import pytest
from hypothesis import given

from tests.helpers.broken_inputs import broken_arguments, broken_contents
from tests.helpers.command_fuzz import FuzzedCommand, check_answer, fuzz, run_command
from tests.helpers.damaged_files import FILE_DAMAGES, damage_file

pytestmark = pytest.mark.medium
PROBLEMS, SOLUTIONS = "problems.jsonl", "solutions.jsonl"
GRADE = FuzzedCommand(
    name="grade",
    module="verl_pipeline.cli",
    arguments=("grade", PROBLEMS, SOLUTIONS, "--output", "verdicts.jsonl", "--workers", "1"),
    files={
        PROBLEMS: [
            {
                "id": "sum",
                "source": "taco",
                "tests": {"inputs": ["1 2\n"], "outputs": ["3\n"]},
                "time_s": 1.0,
                "memory_bytes": 2**30,
                "prelude": "import math",
                "entry_point": None,
            }
        ],
        SOLUTIONS: [{"id": "sum", "program": "print(sum(map(int, input().split())))"}],
    },
    exit_codes=frozenset({0, 1, 2}),
    links=frozenset({"id"}),
    preload=("verl_pipeline.grading.grading_files", "rich.progress"),
)
both_files = pytest.mark.parametrize("slot", [PROBLEMS, SOLUTIONS])
OPTIONS = ["--workers", "--tier", "--url"]


def test_good_files_are_graded():
    answer = run_command(GRADE)
    assert answer.exit_code == 0 and "accepted" in answer.output, answer.output


@both_files
@pytest.mark.parametrize("damage", FILE_DAMAGES)
def test_damaged_file(slot, damage):
    check_answer(GRADE, damage_file(slot, damage))


@both_files
def test_broken_lines(slot):
    @fuzz(examples=20)
    @given(broken=broken_contents(GRADE, slot))
    def check(broken):
        check_answer(GRADE, broken)

    check()


def test_broken_arguments():
    @fuzz(examples=15)
    @given(broken=broken_arguments(GRADE, OPTIONS))
    def check(broken):
        check_answer(GRADE, broken)

    check()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@both_files
def test_many_broken_lines(slot):
    @fuzz(examples=300, seeded=False)
    @given(broken=broken_contents(GRADE, slot))
    def check(broken):
        check_answer(GRADE, broken)

    check()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_broken_arguments():
    @fuzz(examples=100, seeded=False)
    @given(broken=broken_arguments(GRADE, OPTIONS))
    def check(broken):
        check_answer(GRADE, broken)

    check()
