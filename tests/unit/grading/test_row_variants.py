"""A row that one door takes all doors take, as the same problem, in every exporter's spelling."""

import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.row_variants import SPELLINGS, read_through_doors, spell_with_arrow, write_json
from verl_pipeline.grading.problem import CallTest, StdinTest
from verl_pipeline.grading.readers import BadRow

pytestmark = pytest.mark.medium
LONG = 7 * 10**4999 + 3
TEXTS = st.text(
    st.one_of(
        st.sampled_from(list("\n \"'\\/\t\r0aé")),
        st.sampled_from(["\u2028", "\x85", "\x0c", "\x1c", "\ufeff", "\U0001f600", "\x00"]),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=12,
)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        # Hypothesis prints what it draws from, and cannot print a long integer.
        st.sampled_from([64, 20_000]).map(lambda bits: 2**bits + 1),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXTS,
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXTS.map("k".__add__), inner, max_size=3)
    ),
    max_leaves=6,
)
STDIN_PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4).filter(
    lambda pairs: any(output.strip() for _input, output in pairs)
)
CALL_PAIRS = st.lists(st.tuples(st.lists(VALUES, max_size=3), VALUES), min_size=1, max_size=4)
FAST = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def make_row(pairs, **fields):
    return {**fields, "inputs": [one for one, _ in pairs], "outputs": [two for _, two in pairs]}


def expect_one_problem(source, spellings, check, tmp_path):
    for name, tests in spellings.items():
        for door, problem in read_through_doors(source, tests, tmp_path).items():
            assert not isinstance(problem, BadRow), f"{door} refuses {name}: {problem}"
            check(problem)


@pytest.mark.parametrize("source", ["taco", "apps", "code_contests", "codeforces"])
@given(pairs=STDIN_PAIRS)
@FAST
def test_tests_on_standard_input(source, pairs, tmp_path):
    expected = tuple(
        StdinTest(text if not text or text.endswith("\n") else f"{text}\n", output)
        for text, output in pairs
    )

    def check(problem):
        assert problem.tests == expected and problem.source == source

    row = make_row(pairs)
    spellings = {name: spell(row) for name, spell in SPELLINGS.items()}
    expect_one_problem(source, spellings | spell_with_arrow(row), check, tmp_path)


@given(pairs=CALL_PAIRS)
@FAST
def test_call_tests(pairs, tmp_path):
    row = make_row(pairs, fn_name="solve")
    boxed = all(isinstance(output, list) and len(output) == 1 for _args, output in pairs)
    is_empty = all(output in (None, [None]) for _args, output in pairs)
    expected = tuple(
        CallTest(tuple(arguments), output[0] if boxed else output, boxed)
        for arguments, output in pairs
    )
    for name, spell in SPELLINGS.items():
        for door, problem in read_through_doors("taco", spell(row), tmp_path).items():
            if is_empty:
                assert isinstance(problem, BadRow), (door, name)
                continue
            assert not isinstance(problem, BadRow), f"{door} refuses {name}: {problem}"
            assert problem.tests == expected and problem.entry_point == "solve", (door, name)
            # 1 == 1.0 == True, but they are different arguments.
            assert write_json([list(test.args) for test in problem.tests]) == write_json(
                row["inputs"]
            ), (door, name)


def drop_last_output(row):
    row["outputs"].pop()


def add_input(row):
    row["inputs"].append("1\n")


def null_an_output(row):
    row["outputs"][-1] = None


def null_an_input(row):
    row["inputs"][0] = None


def make_bool(row):
    row["outputs"][0] = True


def nest_output(row):
    row["outputs"][0] = [["1", "2"]]


def add_numbers(row):
    row["inputs"][0] = [1, 2]


def empty_all(row):
    row["inputs"], row["outputs"] = [], []


def blank_outputs(row):
    row["outputs"] = [" "] * len(row["outputs"])


def name_twice(row):
    row["input"] = row["inputs"]


def write_float_input(row):
    row["inputs"][0] = 5.0


def lose_outputs(row):
    del row["outputs"]


def name_no_function(row):
    row["fn_name"] = "two words"


FAULTS = [
    drop_last_output,
    add_input,
    null_an_output,
    null_an_input,
    make_bool,
    nest_output,
    add_numbers,
    empty_all,
    blank_outputs,
    name_twice,
    write_float_input,
    lose_outputs,
    name_no_function,
]


@pytest.mark.parametrize("damage", FAULTS)
@given(pairs=STDIN_PAIRS)
@settings(FAST, max_examples=10)
def test_a_damaged_row_is_refused_by_every_door(damage, pairs, tmp_path):
    row = copy.deepcopy(make_row(pairs))
    damage(row)
    for name in ("value", "json", "repr", "arrays", "json within json"):
        for door, problem in read_through_doors("taco", SPELLINGS[name](row), tmp_path).items():
            assert isinstance(problem, BadRow), (door, name)
            assert "\n" not in str(problem)


@pytest.mark.parametrize(
    "text",
    [
        '{"inputs": ["1", "2"], "outputs": ["1", "2"], "inputs": ["1"], "outputs": ["1"]}',
        "{'inputs': ['1' '2'], 'outputs': ['1' '2']}",
        "{'inputs': ['1'], 'outputs': ['1'], 'inputs': ['2']}",
        "{'inputs': array(['1'], dtype=object), 'outputs': array(['1'], dtype=object)}",
        '{"inputs": "12", "outputs": "34"}',
        '{"inputs": [NaN], "outputs": ["1"]}',
        '[{"input": "1"}]',
        '[{"input": "1", "output": "1"}, "x"]',
        "__import__('os').getcwd()",
        "",
        "[" * 100_000,
    ],
)
def test_text_that_would_lose_tests_is_refused_by_every_door(text, tmp_path):
    for door, problem in read_through_doors("taco", text, tmp_path).items():
        assert isinstance(problem, BadRow), door


@pytest.mark.parametrize(
    ("output", "text"),
    [(5, "5"), (-LONG, write_json(-LONG)), (0.5, "0.5"), (["5"], "5"), ([5], "5"), (5.0, "5.0")],
    ids=["integer", "long", "float", "line", "integer as line", "whole float"],
)
def test_a_number_is_what_a_program_prints(output, text, tmp_path):
    row = {"inputs": ["1\n"], "outputs": [output]}
    for door, problem in read_through_doors("taco", row, tmp_path).items():
        assert not isinstance(problem, BadRow), (door, problem)
        assert problem.tests == (StdinTest("1\n", text),), door
