"""`verl-pipeline grade` with broken files, broken lines and broken arguments."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given

from tests.helpers.broken_inputs import broken_arguments, broken_contents
from tests.helpers.command_fuzz import (
    Answer,
    FuzzedCommand,
    check_answer,
    check_answers,
    efforts,
    find_faults,
    fuzz,
    run_command,
)
from tests.helpers.damaged_files import damage_file, each_damage
from tests.helpers.grade_examples import EXAMPLE_LINES
from verl_pipeline.errors import escape_controls
from verl_pipeline.grading.grading_inputs import read_problems

pytestmark = pytest.mark.medium
PROBLEMS, SOLUTIONS = "problems.jsonl", "solutions.jsonl"
GRADE = FuzzedCommand(
    name="grade",
    module="verl_pipeline.cli",
    arguments=("grade", PROBLEMS, SOLUTIONS, "--output", "verdicts.jsonl", "--workers", "1"),
    files={
        # The first has a solution and all optional fields.
        PROBLEMS: [
            {
                "id": "sum",
                "source": "taco",
                "tests": {"inputs": ["1 2\n"], "outputs": ["3\n"]},
                "time_s": 1.0,
                "memory_bytes": 2**30,
                "prelude": "import math",
                "entry_point": None,
            },
            *map(json.loads, EXAMPLE_LINES),
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
@each_damage
def test_damaged_file(slot, damage):
    check_answer(GRADE, damage_file(slot, damage))


@both_files
@efforts(quick=20, many=300)
def test_broken_lines(slot, effort):
    check_answers(GRADE, broken_contents(GRADE, slot), effort)


@efforts(quick=200, many=5000)
def test_broken_rows_of_every_reader(effort):
    """Read here, without a process: so that many can be tried."""

    @fuzz(effort)
    @given(broken=broken_contents(GRADE, PROBLEMS))
    def check(broken):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / PROBLEMS
            broken.make(path)
            bad_lines = read_problems(path).bad_lines
        # As the command prints them.
        output = "".join(f"{escape_controls(str(line))}\n" for line in bad_lines)
        assert not find_faults(GRADE, broken, Answer(int(bool(bad_lines)), output, ())), output

    check()


@efforts(quick=15, many=100)
def test_broken_arguments(effort):
    check_answers(GRADE, broken_arguments(GRADE, OPTIONS), effort)
