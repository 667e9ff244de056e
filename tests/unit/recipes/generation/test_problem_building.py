"""Planted faults of candidates: each is rejected for its own reason, and the sound one is built."""

import dataclasses
import json

import pytest

from verl_pipeline.grading import grade
from verl_pipeline.grading.readers import read_problem
from verl_pipeline.recipes.deepcoder.generation.candidates import Candidate, Rejection
from verl_pipeline.recipes.deepcoder.generation.generation_config import GenerateConfig
from verl_pipeline.recipes.deepcoder.generation.output_rounding import ROUNDING_NOTE
from verl_pipeline.recipes.deepcoder.generation.problem_building import build_problem

pytestmark = pytest.mark.medium

GENERATOR = """
def generate_inputs(rng):
    return {"values": [rng.randint(-9, 9) for _ in range(rng.randint(0, 6))], "least": 2}
"""
SOUND = Candidate(
    id="1",
    question="Sum what exceeds `least`.",
    program="def solve(values, least):\n    return sum(v for v in values if v > least)\n",
    generator=GENERATOR,
    entry_point="solve",
    parameters=("values", "least"),
)
CONFIG = GenerateConfig()
STDIN_MAIN = """
import json, sys
print(json.dumps(solve(*map(json.loads, sys.stdin.read().splitlines())), sort_keys=True))
"""


def change(**fields) -> Candidate:
    return dataclasses.replace(SOUND, **fields)


def test_a_sound_candidate_becomes_a_problem_that_the_grader_takes(interpreters):
    row = build_problem(SOUND, interpreters, CONFIG)

    problem = read_problem("taco", json.dumps(row.tests), name="1")
    assert grade(problem, row.solutions[0], interpreters.first).reward == 1.0
    assert grade(problem, "def solve(values, least): return 0", interpreters.first).reward == 0.0
    assert 12 <= len(problem.tests) <= 24
    outputs = [json.dumps(output) for output in row.tests["outputs"]]
    assert max(map(outputs.count, outputs)) <= CONFIG.tests.repeats
    assert row.generation["killed"] <= row.generation["mutants"] and row.skip_reason is None
    assert row == build_problem(SOUND, interpreters, CONFIG)


def test_the_same_candidate_can_read_standard_input(interpreters):
    row = build_problem(change(stdin_main=STDIN_MAIN), interpreters, CONFIG)

    problem = read_problem("taco", json.dumps(row.tests), name="1")
    assert problem.entry_point is None and problem.tests[0].input.endswith("2\n")
    assert grade(problem, row.solutions[0], interpreters.first).reward == 1.0


CHANCE = "def solve(values, least):\n    return random.random()\n"
SET_ORDER = """
def solve(values, least):
    return "".join({str(value) for value in values})
"""
MEMORY = """
calls = []
def solve(values, least):
    calls.append(values)
    return len(calls) * 1000 + sum(values)
"""
CLOCK = """
import datetime
def solve(values, least):
    return sum(values) + datetime.date.today().year
"""
SLOW = "def solve(values, least):\n    return sum(i for i in range(10**9))\n"
ENDLESS = "def generate_inputs(rng):\n    while True:\n        pass\n"
PAUSING = "import time\ndef generate_inputs(rng):\n    time.sleep(1000)\n"
UNSEEDED = "def generate_inputs(rng):\n    return {'values': [random.random()], 'least': 1}\n"
SET_INPUTS = """
def generate_inputs(rng):
    return {"values": [int(x) for x in {"1", "22", "333"}] + [rng.randint(0, 99)], "least": 1}
"""
ONE_INPUT = "def generate_inputs(rng):\n    return {'values': [1], 'least': 0}\n"
OTHER_NAMES = "def generate_inputs(rng):\n    return {'values': [rng.random()], 'most': 0}\n"
CRASHING = "def generate_inputs(rng):\n    raise KeyError(rng.random())\n"
GUESSABLE = "def solve(values, least):\n    return min(len(values), 2)\n"
THIRDS = "def solve(values, least):\n    return sum(values) / 3 + len(values) / 7\n"
FLAT = """
def solve(values, least):
    if least > 5:
        return least * 7 + 1
    return list(values)
"""
UNCHANGEABLE = "def solve(values, least):\n    return sorted(values)\n"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"program": CHANCE}, "the reference is not deterministic"),
        ({"program": SET_ORDER}, "the reference is not deterministic"),
        ({"program": MEMORY}, "the reference is not deterministic"),
        ({"program": CLOCK}, "the reference reads the clock"),
        ({"program": SLOW}, "too few tests"),
        ({"program": "def solve(:"}, "the reference is not valid Python"),
        ({"program": "def other(values, least):\n    return 1\n"}, "too few tests"),
        ({"program": GUESSABLE}, "too few different outputs"),
        ({"program": THIRDS}, "too few tests"),
        ({"program": UNCHANGEABLE}, "the reference has no mutants"),
        ({"program": FLAT}, "the tests kill too few mutants"),
        ({"generator": ENDLESS}, "the generator does not end in time"),
        ({"generator": PAUSING}, "the generator does not end in time"),
        ({"generator": UNSEEDED}, "the generator is not deterministic"),
        ({"generator": SET_INPUTS}, "the generator is not deterministic"),
        ({"generator": ONE_INPUT}, "the generator gives too few inputs"),
        ({"generator": CRASHING}, "the generator gives too few inputs"),
        ({"generator": OTHER_NAMES}, "the generator returns other arguments"),
        ({"generator": "def f("}, "the generator is not valid Python"),
        (
            {"given": ((([3, 4], 0), 7), (([1], 0), 2))},
            "the reference fails the tests that it came with",
        ),
    ],
)
def test_a_planted_fault_is_rejected_for_its_reason(interpreters, fields, reason):
    config = GenerateConfig()
    config.tests.min = 6  # a guessable problem has no more of different inputs
    config.time.generator_s = config.time.reference_s = 0.2

    with pytest.raises(Rejection) as found:
        build_problem(change(**fields), interpreters, config)

    assert found.value.reason == reason and str(found.value).startswith(reason)


def test_tests_that_kill_no_mutant_are_rejected(interpreters):
    program = (
        "def solve(values, least):\n    if least > 5:\n        least += 1\n    return values\n"
    )

    with pytest.raises(Rejection) as found:
        build_problem(change(program=program), interpreters, GenerateConfig())

    # Only `least > 5` with `not` in front reaches the addition, and no output shows it.
    assert found.value.reason == "the tests kill no mutant"


def test_rounding_makes_a_problem_of_outputs_that_rounding_errors_change(interpreters):
    row = build_problem(change(program=THIRDS, may_round=True), interpreters, CONFIG)

    assert row.question.endswith(ROUNDING_NOTE)
    another_way = """
def solve(values, least):
    total = 0.0
    for value in reversed(values):
        total += value / 3
    return round(len(values) / 7 + total, 6)
"""
    problem = read_problem("taco", json.dumps(row.tests), name="1")
    assert grade(problem, another_way, interpreters.first).reward == 1.0


def test_given_tests_stay_and_come_first(interpreters):
    given = ((([3, 4], 0), 7), (([], 5), 0))

    row = build_problem(change(given=given), interpreters, CONFIG)

    assert row.tests["inputs"][:2] == [[[3, 4], 0], [[], 5]]
