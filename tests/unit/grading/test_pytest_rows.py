"""Rows that are pytest files: what pytest runs, and who is to blame when it fails."""

import pytest

from tests.helpers.pytest_rows import ROWS
from verl_pipeline.grading import Verdict, grade
from verl_pipeline.grading.readers import read_kodcode

pytestmark = pytest.mark.timeout(120)
FAILURES = (Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR)


@pytest.mark.parametrize("name", ROWS)
def test_a_right_program_is_accepted_and_a_wrong_one_is_not(sandbox, name):
    row = ROWS[name]
    problem = read_kodcode(row.tests, name=name, time_s=4.0)
    result = grade(problem, row.right, sandbox)
    assert result.verdict is Verdict.ACCEPTED, result
    result = grade(problem, row.wrong, sandbox)
    assert result.verdict in FAILURES, result
