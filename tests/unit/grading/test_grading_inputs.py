"""Lines that `verl-pipeline grade` refuses: where, which field, and what was expected."""

import json

import pytest

from verl_pipeline.grading.grading_inputs import LineFault, read_problems, read_solutions
from verl_pipeline.input_files import InputError

PROBLEM = {"id": 1, "source": "taco", "tests": {"inputs": ["1 2\n"], "outputs": ["3\n"]}}
MBPP = {"id": "m", "source": "mbpp", "test_list": ["assert add_two(1, 2) == 3"]}


def read_lines(tmp_path, *rows):
    path = tmp_path / "problems.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return read_problems(path)


@pytest.mark.parametrize(("rows", "indent"), [([PROBLEM, MBPP], None), (PROBLEM, 2)])
def test_one_json_document_is_no_file_of_lines(tmp_path, rows, indent):
    with pytest.raises(InputError, match="expected an object on each line"):
        read_lines(tmp_path, json.dumps(rows, indent=indent))


@pytest.mark.parametrize(
    "text",
    ["-5", "0", "NaN", "Infinity", '"5"', "true", "1e400", "1e308", "[5]", "0.001", "1e5"],
)
def test_a_time_limit_is_a_number_of_seconds(tmp_path, text):
    line = json.dumps({**PROBLEM, "time_s": 5}).replace('"time_s": 5', f'"time_s": {text}')
    [bad_line] = read_lines(tmp_path, line).bad_lines
    assert bad_line.line == 1 and bad_line.reason.startswith("time_s: found ")
    assert "expected CPU seconds for each test, a number from 0.01 to 86400" in bad_line.reason


@pytest.mark.parametrize("text", ["-1", "0", "512", "1.5", '"4G"', "true", "1e30", "NaN"])
def test_a_memory_limit_is_a_number_of_bytes(tmp_path, text):
    line = json.dumps({**PROBLEM, "memory_bytes": 5}).replace(": 5}", f": {text}}}")
    [bad_line] = read_lines(tmp_path, line).bad_lines
    assert bad_line.reason.startswith("memory_bytes: found ") and "64 MiB" in bad_line.reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prelude": 5}, "prelude: found 5; expected Python source as text"),
        ({"prelude": "def"}, "the prelude is not valid Python"),
        ({"entry_point": ["f"]}, "entry_point: found a list; expected the name of a function"),
        ({"entry_point": "f()"}, "entry_point: found 'f()'; expected the name"),
        ({"id": None}, "id: found null; expected text that is not empty, or an integer"),
        ({"id": " "}, "id: found ' '; expected text"),
        ({"id": 1.0}, "id: found 1.0; expected text"),
        ({"id": 10**30}, "id: found 1" + "0" * 30),
        ({"id": True}, "id: found true"),
        ({"source": None}, "source: found null; expected one of apps, "),
        ({"source": ["taco"]}, "source: found a list; expected one of apps, "),
        ({"source": "tacos"}, "no reader for source 'tacos': did you mean 'taco'? Use one of apps"),
        ({"tests": 5}, "tests: expected tests with inputs and outputs, found an integer"),
        ({"tests": {"input": 1}}, "tests: source 'taco' needs inputs and outputs, or input_output"),
        ({"tests": {"inputs": [], "output": []}}, "tests: no tests"),
        ({"time": 5}, "'time': no such field; did you mean 'time_s'?"),
        ({"timeout_s": 5}, "'timeout_s': no such field; did you mean 'time_s'?"),
        ({"memory_byte": 5}, "'memory_byte': no such field; did you mean 'memory_bytes'?"),
        ({"entrypoint": "f"}, "'entrypoint': no such field; did you mean 'entry_point'?"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected(tmp_path, change, message):
    file = read_lines(tmp_path, {**PROBLEM, **change}, {**PROBLEM, "id": "good"})
    [bad_line] = file.bad_lines
    assert str(bad_line).startswith(f"{tmp_path}/problems.jsonl:1: ")
    assert message in bad_line.reason and "\n" not in bad_line.reason
    assert list(file.problems) == ["good"]


def test_a_field_close_to_tests_is_named(tmp_path):
    row = {"id": 1, "source": "taco", "test": PROBLEM["tests"]}
    [bad_line] = read_lines(tmp_path, row).bad_lines
    assert "needs inputs and outputs, or input_output; found id, source, test" in bad_line.reason
    assert bad_line.reason.endswith("did you mean 'tests' instead of 'test'?")


def test_a_field_close_to_a_needed_one_is_named(tmp_path):
    [bad_line] = read_lines(tmp_path, {"id": 1, "source": "mbpp", "tests_list": []}).bad_lines
    assert "source 'mbpp' needs test_list; found id, source, tests_list" in bad_line.reason
    assert "did you mean 'test_list' instead of 'tests_list'?" in bad_line.reason


def test_fields_of_the_data_set_and_nulls_are_no_faults(tmp_path):
    rows = [
        {**MBPP, "task_id": 5, "time_limit": "1 s", "url": None, "time_s": None, "prelude": None},
        {**PROBLEM, "test": "of HumanEval, say", "memory_limit": 5, "memory_bytes": 2.0**30},
    ]
    assert not read_lines(tmp_path, *rows).bad_lines


def test_a_number_is_the_same_id_as_its_digits(tmp_path):
    file = read_lines(tmp_path, PROBLEM, {**PROBLEM, "id": "1"})
    assert [bad_line.line for bad_line in file.bad_lines] == [2]
    assert "id: '1' is in line 1 already; expected each id once" in file.bad_lines[0].reason


def test_a_solution_without_a_problem_says_why(tmp_path):
    file = read_lines(tmp_path, PROBLEM, {**PROBLEM, "id": "bad", "time_s": -5})
    path = tmp_path / "solutions.jsonl"
    rows = [
        {"id": "1", "program": "x"},
        {"id": "bad", "program": "x"},
        {"id": "else", "program": "x"},
        {"id": 1, "program": 5},
        {"id": 1, "program": "x", "response": "y"},
        {"id": 1, "program": None},
        {"program": "x"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    solutions, bad_lines = read_solutions(path, file)
    assert [solution.line for solution in solutions] == [1]
    assert [(line.line, line.fault) for line in bad_lines] == [
        (2, LineFault.BAD_PROBLEM),
        (3, LineFault.NO_PROBLEM),
        *((number, LineFault.BAD_LINE) for number in (4, 5, 6, 7)),
    ]
    reasons = [line.reason for line in bad_lines]
    assert reasons[0].endswith(f"see {tmp_path}/problems.jsonl:2")
    assert reasons[2] == "program: found 5; expected text"
    assert reasons[3].startswith("both program and response; expected one of them")
    assert reasons[4].startswith("neither program nor response; expected one of them")
    assert reasons[5] == "no field id; found program"


def test_an_empty_file_is_named(tmp_path):
    path = tmp_path / "empty.jsonl"
    path.write_text("\n \n")
    with pytest.raises(InputError, match="empty.jsonl has no line; expected one problem a line"):
        read_problems(path)
