"""Rows in the format of each source, as published, and the errors for rows that cannot be read."""

import base64
import json
import pickle
import zlib

import pytest

from verl_pipeline.grading import readers
from verl_pipeline.grading.problem import LIVECODEBENCH_TIME_S, AssertTest, CallTest, StdinTest
from verl_pipeline.grading.readers import BadRow


def test_taco_stdin_tests_may_be_text_or_lines():
    problem = readers.read_taco(
        '{"inputs": ["1\\n", ["2", "3"]], "outputs": ["a\\n", ["b", "c"]]}', name="1"
    )
    assert problem.tests == (StdinTest("1\n", "a\n"), StdinTest("2\n3\n", "b\nc"))
    assert problem.entry_point is None and problem.source == "taco"


def test_taco_call_tests_may_be_lists_or_json_lines_with_boxed_outputs_or_not():
    boxed = {"fn_name": "f", "inputs": [["a", 1], ["b", 2]], "outputs": [[True], [False]]}
    assert readers.read_taco(boxed, name="1").tests == (
        CallTest(("a", 1), True, boxed=True),
        CallTest(("b", 2), False, boxed=True),
    )
    texts = {
        "fn_name": "f",
        "inputs": [[1], [2]],
        "outputs": ["12", "[3]"],
    }  # outputs are JSON only if the arguments are
    assert [test.output for test in readers.read_taco(texts, name="1").tests] == ["12", "[3]"]
    lines = {"fn_name": "f", "inputs": ['[1, 2]\n"x"'], "outputs": ["[1, 2]"]}
    problem = readers.read_taco(lines, name="1")
    assert problem.tests == (CallTest(([1, 2], "x"), [1, 2]),) and problem.entry_point == "f"
    # A list of several elements is the value: its first element alone must not be accepted.
    mixed = {"fn_name": "f", "inputs": [[1], [2]], "outputs": [[1], [1, 2]]}
    assert [test.output for test in readers.read_taco(mixed, name="1").tests] == [[1], [1, 2]]


def test_integer_keys_of_arguments_are_restored():
    row = {"fn_name": "f", "inputs": [[{"1": "a", "-2": "b"}]], "outputs": [[{"x": 1}]]}
    assert readers.read_taco(row, name="1").tests == (
        CallTest(({1: "a", -2: "b"},), {"x": 1}, boxed=True),
    )


def test_integer_keys_are_restored_at_every_depth_and_length():
    long = "9" * 5000
    row = {"fn_name": "f", "inputs": [[[{"0": {"-12": {"1": 2}}}], {long: 3}]], "outputs": [[1]]}
    (test,) = readers.read_taco(row, name="1").tests
    assert test.args == ([{0: {-12: {1: 2}}}], {10**5000 - 1: 3})


@pytest.mark.parametrize("key", ["01", "-0", "+1", "1.0", " 1", "1_0", "\u0661", "", "-", "--1"])
def test_a_key_that_no_integer_is_written_as_stays_text(key):
    row = {"fn_name": "f", "inputs": [[{"1": 2, key: 3}]], "outputs": [[1]]}
    (test,) = readers.read_taco(row, name="1").tests
    assert test.args == ({"1": 2, key: 3},)


def test_tests_in_two_fields_must_be_the_same():
    one, more = ({"inputs": inputs, "outputs": inputs} for inputs in (["1"], ["1", "2"]))
    with pytest.raises(readers.BadRow, match="different tests in input_output and tests"):
        readers.read_taco({"input_output": one, "tests": more}, name="1")
    assert readers.read_taco({"input_output": one, "tests": one}, name="1").tests
    assert len(readers.read_taco({"input_output": "", "tests": more}, name="1").tests) == 2


def test_primeintellect():
    stdin = [{"type": "stdin_stdout", "input": "3\n", "output": "YES\n", "fn_name": None}]
    assert readers.read_primeintellect(
        {"language": "python", "test_cases": stdin}, name="1"
    ).tests == (StdinTest("3\n", "YES\n"),)
    calls = [{"type": "function_call", "fn_name": "f", "input": [[3, 2, 3]], "output": 3}]
    problem = readers.read_primeintellect(json.dumps(calls), name="1")
    assert problem.tests == (CallTest(([3, 2, 3],), 3),) and problem.entry_point == "f"


def pack_tests(value) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def test_livecodebench_private_tests_may_be_json_or_packed():
    public = [{"input": "1\n", "output": "2\n", "testtype": "stdin"}]
    private = [{"input": "3\n", "output": "4\n", "testtype": "stdin"}]
    for stored in (json.dumps(private), pack_tests(json.dumps(private))):
        row = {
            "public_test_cases": json.dumps(public),
            "private_test_cases": stored,
            "metadata": "{}",
        }
        problem = readers.read_livecodebench(row, name="1")
        assert problem.tests == (StdinTest("1\n", "2\n"), StdinTest("3\n", "4\n"))
        assert problem.public == 1 and problem.time_s == LIVECODEBENCH_TIME_S


def test_livecodebench_functional_tests_are_calls():
    tests = [
        {
            "input": "[5, 3]\n5",
            "output": "3",
            "testtype": "functional",
            "metadata": {"func_name": "count"},
        }
    ]
    problem = readers.read_livecodebench(json.dumps(tests), name="1")
    assert problem.tests == (CallTest(([5, 3], 5), 3),) and problem.entry_point == "count"


class PickledCall:
    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize("value", [PickledCall(), [1], b"bytes", {"a": PickledCall()}])
def test_a_pickle_of_anything_but_text_is_refused_and_not_executed(value, capsys):
    row = {"public_test_cases": "[]", "private_test_cases": pack_tests(value)}
    with pytest.raises(BadRow, match="private tests"):
        readers.read_livecodebench(row, name="1")
    assert capsys.readouterr().out == ""


def test_codeforces():
    assert readers.read_codeforces([{"input": "1", "output": "2"}], name="1").tests == (
        StdinTest("1\n", "2"),
    )


@pytest.mark.parametrize(
    "prompt", ["def f(x):", "def f(x):\n    # doubles\n", 'def f(x):\n    """Doubles."""\n\n']
)
def test_a_prompt_need_not_have_a_body(prompt):
    row = {
        "prompt": prompt,
        "entry_point": "f",
        "test": "def check(candidate):\n    assert candidate(1) == 2\n",
    }
    compile(readers.read_humaneval(row, name="1").prelude, "prelude", "exec")
    with pytest.raises(ValueError, match="prompt: not valid Python"):
        readers.read_humaneval({**row, "prompt": "def f("}, name="1")


def test_humaneval_mbpp_leetcode_kodcode():
    row = {"task_id": "HumanEval/0", "prompt": "def g(): ...\ndef f(x):\n", "entry_point": "f"}
    problem = readers.read_humaneval(
        {**row, "test": "def check(candidate):\n    assert candidate(1) == 1\n"}
    )
    (test,) = problem.tests
    assert (
        isinstance(test, AssertTest) and test.source.endswith("check(f)\n") and test.names == ("f",)
    )
    mbpp = readers.read_mbpp(
        {"task_id": 2, "test_list": ["assert set(f(1)) == set((4,))", "assert f(2) == 3"]}
    )
    assert [test.names for test in mbpp.tests] == [("f",), ("f",)] and mbpp.name == "2"
    leetcode = readers.read_leetcode(
        {"functional": "def check(c):\n    assert c(1) == 1\ncheck(Solution().m)"}, name="1"
    )
    assert leetcode.tests[0].names == ("Solution",)
    source = "from solution import f, g\n\ndef test_a():\n    assert f() == g()\n"
    (test,) = readers.read_kodcode(source, name="1").tests
    assert (test.source, test.names, test.collected) == (source, ("f", "g"), (("test_a", 1),))


@pytest.mark.parametrize(
    ("read", "row", "message"),
    [
        (readers.read_taco, {"inputs": ["1"], "outputs": []}, "1 inputs and 0 outputs"),
        (readers.read_taco, "{", "not valid JSON"),
        (readers.read_taco, [], "no tests"),
        (
            readers.read_primeintellect,
            [{"type": "function_call", "input": [], "output": 1}],
            "type and fn_name: expected one type for all tests",
        ),
        (readers.read_livecodebench, [], "no tests"),
        (
            readers.read_livecodebench,
            [{"testtype": "functional", "input": "1", "output": "1"}],
            "func_name",
        ),
        (readers.read_codeforces, {"a": 1}, "found an object with a"),
        (readers.read_leetcode, {}, "functional is missing"),
        (readers.read_leetcode, {"functional": "def"}, "not valid Python"),
        (readers.read_kodcode, "def test(): pass", "import nothing from solution"),
    ],
)
def test_a_bad_row_is_refused_with_its_cause(read, row, message):
    with pytest.raises(BadRow, match=message):
        read(row, name="1")
