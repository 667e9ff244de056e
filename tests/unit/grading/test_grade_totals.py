"""The totals of `verl-pipeline grade`, its exit codes, and what it does with stored verdicts."""

import json

import pytest
from typer.testing import CliRunner

from verl_pipeline.cli import app
from verl_pipeline.sandbox import TIERS

pytestmark = [pytest.mark.medium, pytest.mark.timeout(120)]
PROBLEM = {
    "id": "sum",
    "source": "taco",
    "tests": {"inputs": ["1 2\n", "3 4\n", "0 0\n"], "outputs": ["3\n", "7\n", "0\n"]},
    "time_s": 1.0,
}
RIGHT = {"id": "sum", "program": "print(sum(map(int, input().split())))"}
CONSTANT = {"id": "sum", "program": "print(7)"}


@pytest.fixture
def grade(tmp_path):
    def run(problems, solutions, *options):
        for name, rows in (("problems", problems), ("solutions", solutions)):
            lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
            (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        files = [str(tmp_path / f"{name}.jsonl") for name in ("problems", "solutions")]
        output = ["--output", str(tmp_path / "verdicts.jsonl"), "--workers", "1"]
        return CliRunner().invoke(app, ["grade", *files, *output, *options])

    return run


def read_verdicts(tmp_path):
    return list(map(json.loads, (tmp_path / "verdicts.jsonl").read_text().splitlines()))


def test_shares_are_of_all_lines_of_the_solutions(grade):
    problems = [PROBLEM, {**PROBLEM, "id": "bad", "time_s": -5}, "{"]
    solutions = [
        RIGHT,
        CONSTANT,
        {**RIGHT, "id": "bad"},
        {**RIGHT, "id": "unknown"},
        {"id": "sum"},
        "not JSON",
        {"id": "sum", "response": "no program"},
        RIGHT,
    ]
    run = grade(problems, solutions)
    assert run.exit_code == 1
    rows = [line.split("│")[1:4] for line in run.stdout.splitlines() if "│" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["accepted", "2", "25.0 %"],
        ["wrong_answer", "1", "12.5 %"],
        ["no_code", "1", "12.5 %"],
        ["not graded: bad line", "2", "25.0 %"],
        ["not graded: its problem is a bad line", "1", "12.5 %"],
        ["not graded: no such problem", "1", "12.5 %"],
        ["all", "8", "100.0 %"],
    ]
    assert "2 of 3 problem lines are bad" in run.stdout


def test_totals_as_json_are_all_that_standard_output_has(grade):
    run = grade([PROBLEM, "{"], [RIGHT, CONSTANT, {"id": "unknown", "program": ""}], "--json")
    assert run.exit_code == 1
    assert json.loads(run.stdout) == {
        "solutions": 3,
        "accepted": 1,
        "refused": {"wrong_answer": 1},
        "not_graded": {"no such problem": 1},
        "problems": 2,
        "bad_problems": 1,
    }
    assert "problems.jsonl:2: not valid JSON" in run.stderr


def test_wrong_programs_are_no_reason_for_another_exit_code(grade):
    assert grade([PROBLEM], [CONSTANT]).exit_code == 0


def test_a_bad_problem_without_solutions_is_counted_too(grade):
    run = grade([PROBLEM, {**PROBLEM, "id": 2, "time_s": 0}], [RIGHT])
    assert run.exit_code == 1 and "1 of 2 problem lines are bad" in run.stdout


def test_all_tests_run_and_the_verdict_stays(grade, tmp_path):
    assert grade([PROBLEM], [RIGHT, CONSTANT]).exit_code == 0
    run = grade([PROBLEM], [RIGHT, CONSTANT], "--all-tests", "--json")
    assert run.exit_code == 0 and "1 verdicts are in" in run.stderr  # the accepted one is complete
    totals = json.loads(run.stdout)
    assert (totals["tests_passed"], totals["tests"]) == (4, 6)
    _right, first, second = read_verdicts(tmp_path)
    same = ("verdict", "reason", "reward", "failed_test", "digest")
    assert [first[key] for key in same] == [second[key] for key in same]
    assert [first[key] for key in ("passed", "ran", "total")] == [0, 1, 3]
    assert [second[key] for key in ("passed", "ran", "total")] == [1, 3, 3]
    # Verdicts of all tests serve calls of both kinds.
    for options in ((), ("--all-tests",)):
        assert "2 verdicts are in" in grade([PROBLEM], [RIGHT, CONSTANT], *options).stderr
    assert len(read_verdicts(tmp_path)) == 3


@pytest.mark.parametrize(
    "change",
    [{"verdict": "partly"}, {"verdict": ["accepted"]}, {"verdict": None}, {"digest": ["x"]}],
)
def test_a_stored_verdict_of_another_version_is_graded_again(grade, tmp_path, change):
    grade([PROBLEM], [RIGHT])
    [row] = read_verdicts(tmp_path)
    path = tmp_path / "verdicts.jsonl"
    path.write_text(json.dumps({**row, **change}) + "\n")
    run = grade([PROBLEM], [RIGHT], "--json")
    assert run.exit_code == 0 and json.loads(run.stdout)["accepted"] == 1, run.output
    assert len(read_verdicts(tmp_path)) == 2


@pytest.mark.parametrize("missing", ["ran", "total", "passed"])
def test_a_stored_verdict_without_counts_is_incomplete(grade, tmp_path, missing):
    grade([PROBLEM], [CONSTANT])
    [row] = read_verdicts(tmp_path)
    del row[missing]
    (tmp_path / "verdicts.jsonl").write_text(json.dumps(row) + "\n")
    assert "verdicts are in" in grade([PROBLEM], [CONSTANT]).stderr
    run = grade([PROBLEM], [CONSTANT], "--all-tests", "--json")
    assert run.exit_code == 0 and json.loads(run.stdout)["tests"] == 3, run.output


@pytest.mark.parametrize("name", ["digest", "verdict", "line"])
def test_a_file_of_something_else_is_refused(grade, tmp_path, name):
    grade([PROBLEM], [RIGHT])
    [row] = read_verdicts(tmp_path)
    del row[name]
    path = tmp_path / "verdicts.jsonl"
    path.write_text(json.dumps(row) + "\n")
    before = path.read_bytes()
    run = grade([PROBLEM], [RIGHT])
    assert run.exit_code == 2 and name in run.stderr and path.read_bytes() == before


def test_an_unknown_tier_gets_the_nearest_name_and_help_lists_all(grade):
    run = grade([PROBLEM], [RIGHT], "--tier", "namespace")
    assert run.exit_code == 2
    assert run.stderr.strip() == (
        "no isolation tier 'namespace': did you mean 'namespaces'? Use one of " + ", ".join(TIERS)
    )
    shown = CliRunner().invoke(app, ["grade", "--help"]).output
    assert all(name in shown for name in TIERS)


@pytest.mark.parametrize("count", ["0", "-1", "1025", "1e3", "many"])
def test_a_wrong_number_of_workers_is_refused(grade, count):
    run = grade([PROBLEM], [RIGHT], "--workers", count)
    assert run.exit_code == 2 and "--workers" in run.stderr
