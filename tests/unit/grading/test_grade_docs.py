"""The examples of docs/grade-command.md: read, and graded with right and wrong programs."""

import json

import pytest

from tests.helpers.grade_examples import EXAMPLE_LINES
from verl_pipeline.grading import Verdict, grade
from verl_pipeline.grading.grading_inputs import read_problems
from verl_pipeline.grading.readers import READERS
from verl_pipeline.grading.readers.needed_fields import NEEDED_FIELDS, list_names

pytestmark = [pytest.mark.medium, pytest.mark.timeout(120)]
STDIN = "print(sum(map(int, input().split())))"
FUNCTION = "def add_two(a, b):\n    return a + b"
PROGRAMS = {
    **dict.fromkeys("taco code_contests codeforces primeintellect livecodebench".split(), STDIN),
    **dict.fromkeys("apps humaneval humanevalplus mbpp mbppplus kodcode".split(), FUNCTION),
    "leetcode": "class Solution:\n    def add_two(self, a, b):\n        return a + b",
    "cruxeval": "def f(a, b):\n    return a + b",
}


def read_example(tmp_path, source):
    [line] = [line for line in EXAMPLE_LINES if json.loads(line)["source"] == source]
    path = tmp_path / "problems.jsonl"
    path.write_text(f"{line}\n")
    return json.loads(line), read_problems(path)


def test_the_page_has_one_example_for_each_reader():
    assert sorted(json.loads(line)["source"] for line in EXAMPLE_LINES) == sorted(READERS)
    assert NEEDED_FIELDS.keys() == READERS.keys()


@pytest.mark.parametrize("source", sorted(READERS))
def test_an_example_is_read_and_graded(tmp_path, sandbox, source):
    row, file = read_example(tmp_path, source)
    assert not file.bad_lines, file.bad_lines
    problem = file.problems[str(row["id"])]
    right = PROGRAMS[source]
    assert grade(problem, right, sandbox).verdict is Verdict.ACCEPTED
    wrong = right.replace("sum(", "max(").replace("a + b", "a - b")
    assert grade(problem, wrong, sandbox).verdict is Verdict.WRONG_ANSWER


@pytest.mark.parametrize("source", sorted(READERS))
def test_an_example_without_a_needed_field_is_refused_with_the_fields_names(tmp_path, source):
    [line] = [line for line in EXAMPLE_LINES if json.loads(line)["source"] == source]
    whole = json.loads(line)
    inner = whole["tests"] if isinstance(whole.get("tests"), dict) else whole
    found = [name for names in NEEDED_FIELDS[source] for name in names if name in inner]
    rows = []
    for name in found:
        less = {key: value for key, value in inner.items() if key != name}
        row = less if inner is whole else {**whole, "tests": less}
        rows.append({**row, "id": name})
    if not found:  # a list of tests
        rows = [{**whole, "tests": {"question": "Add."}}]
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    bad_lines = read_problems(path).bad_lines
    assert len(bad_lines) == len(rows)
    for number, bad_line in enumerate(bad_lines, 1):
        assert bad_line.line == number
        assert f"source {source!r} needs {list_names(NEEDED_FIELDS[source][0])}" in str(bad_line)
