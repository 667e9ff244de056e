"""Rows of the hub in the spellings of exporters, read by the recipe and by the readers."""

import json

import numpy
import pytest

from tests.helpers.row_variants import make_arrays
from tests.helpers.source_rows import (
    CODE_CONTESTS_ROW,
    HUB_EXAMPLES,
    LIVECODEBENCH_CALL_ROW,
    LIVECODEBENCH_ROW,
    MBPP_ROW,
    PRIMEINTELLECT_ROW,
    TACO_ROW,
    pack_tests,
)
from tests.helpers.thinned import thin_out
from verl_pipeline.grading.readers import BadRow, read_problem
from verl_pipeline.recipes.deepcoder.data.data_sources import SOURCES
from verl_pipeline.recipes.deepcoder.data.ingestion import _build_record, _find_format
from verl_pipeline.recipes.deepcoder.data.preparation_config import SourceConfig
from verl_pipeline.recipes.deepcoder.data.problem_records import ProblemRecord


def open_texts(row):
    """Replace JSON text of objects and lists by what it says, as a column of structs has it."""
    opened = {}
    for key, value in row.items():
        try:
            content = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            content = value
        opened[key] = content if isinstance(content, dict | list) else value
    return opened


def map_containers(row, write):
    return {
        key: write(value) if isinstance(value, dict | list) else value
        for key, value in open_texts(row).items()
    }


def turn_layout(value):
    """Turn a list of objects into an object of lists, and back."""
    if isinstance(value, dict) and value and all(isinstance(one, list) for one in value.values()):
        return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return {key: [one[key] for one in value] for key in value[0]}
    if isinstance(value, dict):
        return {key: turn_layout(item) for key, item in value.items()}
    return value


SPELLINGS = {
    "structs": open_texts,
    "json": lambda row: map_containers(row, json.dumps),
    "repr": lambda row: map_containers(row, repr),
    "json within json": lambda row: map_containers(row, lambda one: json.dumps(json.dumps(one))),
    "arrays": lambda row: make_arrays(open_texts(row)),
    "bytes": lambda row: map_containers(row, lambda one: json.dumps(one).encode()),
    "other layout": lambda row: map_containers(row, turn_layout),
    "more columns": lambda row: {**row, "seen": numpy.datetime64("2025-01-01"), "extra": None},
}


def read_row(source, row):
    row_format = _find_format(row, SOURCES[source])
    record = _build_record(
        source, SOURCES[source], row_format.read_row(row), "origin", SourceConfig()
    )
    assert isinstance(record, ProblemRecord)
    return record


@pytest.mark.parametrize("spelling", thin_out(SPELLINGS, 4))
@pytest.mark.parametrize(
    ("source", "row", "count"),
    [
        (source, row, count)
        for source, row, _id, count, *_ in HUB_EXAMPLES
        if source != "quickstart"
    ],
)
def test_the_recipe_reads_every_spelling_alike(source, row, count, spelling):
    plain, spelled = read_row(source, row), read_row(source, SPELLINGS[spelling](row))
    assert spelled.test_count == plain.test_count == count
    assert spelled.read_problem() == plain.read_problem()
    assert (spelled.solutions, spelled.question) == (plain.solutions, plain.question)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    ("source", "row"),
    [
        ("taco", TACO_ROW),
        ("primeintellect", PRIMEINTELLECT_ROW),
        ("livecodebench", LIVECODEBENCH_ROW),
        ("livecodebench", LIVECODEBENCH_CALL_ROW),
        ("code_contests", CODE_CONTESTS_ROW),
        ("mbpp", MBPP_ROW),
    ],
)
def test_a_reader_takes_the_row_itself_and_its_text(source, row, spelling):
    expected = read_row(source, row).read_problem().tests
    assert read_problem(source, SPELLINGS[spelling](row), name="x").tests == expected
    assert read_problem(source, json.dumps(row), name="x").tests == expected
    assert read_problem(source, repr(row), name="x").tests == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("private_test_cases", None),
        ("private_test_cases", ""),
        ("private_test_cases", float("nan")),
        ("public_test_cases", None),
        ("private_test_cases", LIVECODEBENCH_ROW["private_test_cases"][:-8]),
        ("private_test_cases", pack_tests('[{"input": "1"}]')),
        ("private_test_cases", pack_tests('{"input": ["1"], "output": ["1", "2"]}')),
        ("private_test_cases", '[{"input": "1", "output": "1", "testtype": "functional"}]'),
        ("public_test_cases", '[{"input": "1", "output": "1"}]'),
    ],
)
def test_livecodebench_without_all_of_its_tests_is_refused(field, value):
    row = {**LIVECODEBENCH_ROW, field: value}
    with pytest.raises(BadRow):
        read_problem("livecodebench", row, name="x")
    with pytest.raises(BadRow):
        read_row("livecodebench", row)


def test_livecodebench_may_have_no_private_tests():
    row = {**LIVECODEBENCH_ROW, "private_test_cases": "[]"}
    assert len(read_problem("livecodebench", row, name="x").tests) == 1
    with pytest.raises(BadRow, match="no tests"):
        read_problem("livecodebench", {**row, "public_test_cases": "[]"}, name="x")


def test_all_livecodebench_tests_name_one_function():
    tests = [
        {"input": "1", "output": "1", "testtype": "functional", "metadata": {"func_name": name}}
        for name in ("f", "g")
    ]
    with pytest.raises(BadRow, match="one metadata.func_name"):
        read_problem("livecodebench", tests, name="x")


@pytest.mark.parametrize(
    "damage",
    [
        {"private_tests": None},
        {"public_tests": {"input": ["1", "2"], "output": ["1"]}},
        {  # as many inputs as outputs in all, but not in each group
            "private_tests": {"input": ["1", "2"], "output": ["1"]},
            "generated_tests": {"input": ["1"], "output": ["1", "2"]},
        },
    ],
)
def test_a_group_of_code_contests_is_complete(damage):
    row = {**CODE_CONTESTS_ROW, **damage}
    with pytest.raises(BadRow):
        read_row("code_contests", row)
    with pytest.raises(BadRow):
        read_problem("code_contests", row, name="x")


@pytest.mark.parametrize(
    "program", ["[print(i) for i in range(3)]", "{1: print(1)}[1]", '"a program"', "(print(1))"]
)
def test_a_solution_that_looks_like_a_list_is_a_program(program):
    row = {**TACO_ROW, "solutions": program}
    assert read_row("taco", row).solutions == (program,)


def test_half_of_a_surrogate_pair_in_tests_can_be_stored():
    row = {**TACO_ROW, "input_output": '{"inputs": ["\ud800"], "outputs": ["1"]}'}
    record = read_row("taco", row)
    assert record.tests.encode() and record.read_problem().tests[0].input == "\ud800\n"
