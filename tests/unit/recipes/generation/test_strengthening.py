"""Strengthening: wrong programs that passed are rejected, right ones never, known tests stay."""

import dataclasses
import json

import pytest

from verl_pipeline.evaluation.data import BadData
from verl_pipeline.evaluation.recorded_files import DamagedFileError
from verl_pipeline.grading import grade
from verl_pipeline.grading.readers import read_problem
from verl_pipeline.recipes.deepcoder.data.problem_records import ProblemRecord
from verl_pipeline.recipes.deepcoder.generation.candidates import Rejection
from verl_pipeline.recipes.deepcoder.generation.generation_config import GenerateConfig
from verl_pipeline.recipes.deepcoder.generation.strengthening import (
    KnownProblem,
    strengthen_problem,
)
from verl_pipeline.recipes.deepcoder.generation.strengthening_inputs import read_sample_file

pytestmark = pytest.mark.medium

RIGHT = "def f(values, least):\n    return [v for v in values if v > least]\n"
ALSO_RIGHT = "def f(values, least):\n    return list(filter(lambda v: v > least, values))\n"
# Passes the known tests, whose `least` is never among the values.
WRONG = "def f(values, least):\n    return [v for v in values if v >= least]\n"
WEAK_TESTS = {
    "inputs": [[[1, 5, 9], 3], [[2, 2, 8], 4], [[6], 1], [[], 2]],
    "outputs": [[5, 9], [8], [6], []],
    "fn_name": "f",
}


def make_known(solutions=(RIGHT,), samples=(), generator=None, tests=WEAK_TESTS) -> KnownProblem:
    record = ProblemRecord(
        "taco/1", "taco", "taco", "Keep what exceeds.", json.dumps(tests), 4, ("f",), "x:1"
    )
    record = dataclasses.replace(record, solutions=tuple(solutions))
    return KnownProblem(record, tuple(samples), generator)


def make_config(opinions=1) -> GenerateConfig:
    config = GenerateConfig()
    config.strengthen.opinions = opinions
    config.strengthen.mutants, config.time.mutant_s = 16, 0.5
    return config


def passes(row, program, sandbox) -> bool:
    problem = read_problem("taco", json.dumps(row.tests), name="1")
    return grade(problem, program, sandbox).reward == 1.0


def test_added_tests_reject_a_wrong_program_and_no_right_one(interpreters):
    known = make_known()
    problem = known.record.read_problem()
    assert grade(problem, WRONG, interpreters.first).reward == 1.0

    row = strengthen_problem(known, interpreters, make_config())

    assert not passes(row, WRONG, interpreters.first)
    assert passes(row, RIGHT, interpreters.first) and passes(row, ALSO_RIGHT, interpreters.first)
    assert row.tests["inputs"][:4] == WEAK_TESTS["inputs"] and row.tests["fn_name"] == "f"
    figures = row.generation
    assert figures["killed_before"] < figures["killed"] <= figures["mutants"]
    assert 1 <= figures["added"] <= 16 and figures["right_refused"] == 0
    assert row == strengthen_problem(known, interpreters, make_config())


def test_a_sample_that_passed_and_is_outvoted_is_rejected(interpreters):
    known = make_known([RIGHT, ALSO_RIGHT], [WRONG])

    row = strengthen_problem(known, interpreters, make_config(opinions=2))

    assert row.generation["samples_rejected"] == 1 and row.generation["right"] == 2


def test_with_more_right_programs_than_opinions_one_is_held_out(interpreters):
    row = strengthen_problem(make_known([RIGHT, ALSO_RIGHT]), interpreters, make_config())

    assert row.generation["held_out"] == 1 and row.generation["right_refused"] == 0
    assert row.solutions == (RIGHT, ALSO_RIGHT)


def test_too_few_opinions_add_nothing(interpreters):
    row = strengthen_problem(make_known(), interpreters, make_config(opinions=2))

    assert (row.generation["agreed"], row.generation["added"]) == (0, 0)
    assert row.tests == WEAK_TESTS


def test_an_input_on_which_official_solutions_differ_is_no_test(interpreters):
    config = make_config(opinions=2)

    row = strengthen_problem(make_known([RIGHT, WRONG]), interpreters, config)

    assert passes(row, WRONG, interpreters.first) and passes(row, RIGHT, interpreters.first)
    assert 0 < row.generation["agreed"] < row.generation["inputs"]


def test_a_held_out_right_program_that_fails_drops_the_problem(interpreters):
    with pytest.raises(Rejection) as found:
        strengthen_problem(make_known([RIGHT, WRONG]), interpreters, make_config())

    assert found.value.reason == "right programs disagree"


def test_a_generator_of_the_model_replaces_derived_inputs(interpreters):
    generator = "def generate_inputs(rng):\n    return [[50, rng.randint(60, 99)], 50]\n"

    row = strengthen_problem(make_known(generator=generator), interpreters, make_config())

    assert row.generation["added"] and all(one[1] == 50 for one in row.tests["inputs"][4:])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"solutions": []}, "no official solution"),
        (
            {"solutions": ["def f(values, least):\n    return 1\n"]},
            "no official solution passes the known tests",
        ),
        ({"generator": ""}, "the model gave no generator"),
        (
            {"generator": "def generate_inputs(rng):\n    while True: pass\n"},
            "the generator does not end in time",
        ),
    ],
)
def test_what_cannot_be_strengthened_says_why(interpreters, changes, reason):
    config = make_config()
    config.time.generator_s = 0.2

    with pytest.raises(Rejection) as found:
        strengthen_problem(make_known(**changes), interpreters, config)

    assert found.value.reason == reason


def test_programs_on_standard_input_are_strengthened_too(interpreters):
    program = (
        "least = int(input())\nprint(sum(v for v in map(int, input().split()) if v > least))\n"
    )
    tests = {"inputs": ["3\n1 5 9\n", "4\n2 2 8\n", "9\n7 1 1\n"], "outputs": ["14", "8", "0"]}

    config = make_config()
    config.strengthen.draws, config.strengthen.mutants = 12, 8

    row = strengthen_problem(make_known([program], tests=tests), interpreters, config)

    assert row.generation["added"] and row.tests["outputs"][:3] == ["14", "8", "0"]
    wrong = program.replace("> least", ">= least")
    assert passes(row, program, interpreters.first) and not passes(row, wrong, interpreters.first)


def test_samples_are_read_as_programs_or_responses(tmp_path):
    path = tmp_path / "samples.jsonl"
    rows = [
        {"id": "a", "program": "x = 1"},
        {"id": "a", "response": "```python\nx = 2\n```"},
        {"id": "a", "program": "x = 1"},
        {"id": "b", "response": "no program"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert {
        name: [one.strip() for one in found] for name, found in read_sample_file(str(path)).items()
    } == {"a": ["x = 1", "x = 2"]}
    path.write_text('{"id": "a"}\n')
    with pytest.raises(DamagedFileError, match=r"samples\.jsonl:1: expected id"):
        read_sample_file(str(path))
    with pytest.raises(BadData, match="no such file"):
        read_sample_file(str(tmp_path / "none.jsonl"))
