"""The reward for code, called as verl's reward loop does."""

import asyncio
import inspect
import json
import time

import numpy
import pyarrow
import pytest

from tests.helpers.patience import scale_deadline
from verl_pipeline.rewards import code
from verl_pipeline.sandbox import Sandbox, SandboxError

pytestmark = pytest.mark.timeout(120)
TESTS = json.dumps({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]})
RIGHT = "```python\nprint(sum(map(int, input().split())))\n```"
HALF = "```python\nprint(3)\n```"


def score_response(response, tests=TESTS, source="taco", **settings):
    settings = {"workers": 1, **settings}
    return asyncio.run(code.compute_score(source, response, tests, {"name": "sum"}, **settings))


def hold_slot():
    """Hold the only slot of a node that grades one program at a time."""
    return code._hold_node_slot(1, scale_deadline(60.0), time.monotonic())


def test_verl_recognizes_a_coroutine_function():
    assert inspect.iscoroutinefunction(code.compute_score)


def test_all_verdicts_have_the_same_keys_and_types():
    results = [score_response(response) for response in (RIGHT, HALF, "no code")]
    assert [result["score"] for result in results] == [1.0, 0.0, 0.0]
    assert [result["verdict"] for result in results] == ["accepted", "wrong_answer", "no_code"]
    types = [{key: type(value) for key, value in result.items()} for result in results]
    assert types[0] == types[1] == types[2]


def test_partial_credit_and_format_penalty_are_optional():
    assert (
        score_response(HALF, partial_credit=True)["score"] == 0.5
        and score_response(HALF, partial_credit=True)["acc"] == 0.0
    )
    assert score_response("no code", format_penalty=0.25)["score"] == -0.25


def test_concurrent_responses_are_all_graded():
    async def score_all():
        calls = [code.compute_score("taco", text, TESTS, workers=2) for text in [RIGHT, HALF] * 8]
        return await asyncio.gather(*calls)

    results = asyncio.run(score_all())
    assert [result["score"] for result in results] == [1.0, 0.0] * 8


def test_a_node_grades_no_more_programs_at_a_time_than_it_has_slots():
    with hold_slot():
        assert (
            "slots for grading was free"
            in score_response(RIGHT, deadline_s=60.0, queue_s=0.2)["reason"]
        )
    assert score_response(RIGHT)["verdict"] == "accepted"


def test_to_wait_behind_others_is_no_failure():
    """The last one waits for a multiple of both deadlines."""
    sleeper = "```python\nimport time\ntime.sleep(0.3)\nprint(sum(map(int, input().split())))\n```"
    score_response(RIGHT)  # starts the sandbox
    seconds = 4 * json.loads(score_response(sleeper)["figures"])["grading_s"]

    async def score_all():
        settings = {"workers": 1, "queue_s": seconds, "deadline_s": seconds}
        calls = [code.compute_score("taco", sleeper, TESTS, **settings) for _ in range(12)]
        return await asyncio.gather(*calls)

    results = asyncio.run(score_all())
    assert [result["verdict"] for result in results] == ["accepted"] * 12
    longest_wait = max(json.loads(result["figures"])["queue_s"] for result in results)
    assert longest_wait > seconds


def test_waiting_for_a_thread_counts_as_waiting_for_a_slot():
    """Otherwise a response that waits for both learns of no slot only after its deadline."""
    queue_s = min(scale_deadline(1.0), 4.0)

    async def score_two():
        settings = {"workers": 1, "queue_s": queue_s, "deadline_s": 1.6 * queue_s}
        calls = [code.compute_score("taco", RIGHT, TESTS, **settings) for _ in range(2)]
        return await asyncio.gather(*calls)

    with hold_slot():
        results = asyncio.run(score_two())
    assert ["slots for grading was free" in result["reason"] for result in results] == [True] * 2


def test_a_missed_deadline_is_infrastructure():
    async def score_a_sleeper():
        sleeper = "```python\nimport time\ntime.sleep(2)\n```"
        return await code.compute_score("taco", sleeper, TESTS, workers=1, deadline_s=0.2)

    result = asyncio.run(score_a_sleeper())
    assert (result["verdict"], result["score"]) == ("infrastructure", 0.0) and "0.2 s" in result[
        "reason"
    ]


def test_a_broken_sandbox_is_infrastructure(monkeypatch):
    def fail(self):
        raise SandboxError("planted")

    monkeypatch.setattr(Sandbox, "lend_worker", fail)
    assert score_response(RIGHT)["verdict"] == "infrastructure"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "nothing"}, "no reader for source .nothing.. Use one of apps"),
        ({"tests": "{"}, "ground_truth of taco sum: not valid JSON"),
        ({"selection": "some"}, "selection='some': must be 'deepcoder'"),
        ({"tier": "docker"}, "no isolation tier 'docker'"),
    ],
)
def test_wrong_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        score_response(RIGHT, **arguments)


def test_a_selection_determines_the_number_of_tests():
    tests = json.dumps({"inputs": [str(10**n) for n in range(20)], "outputs": ["1"] * 20})
    chosen = {
        name: len(code._read_problem("taco", tests, name, "x").tests)
        for name in ("deepcoder", "all", "longest:3")
    }
    assert chosen == {"deepcoder": 15, "all": 20, "longest:3": 3}
    assert len(code._read_problem("taco", tests, "sample:4:1", "x").tests) == 4


def test_a_draft_in_reasoning_that_the_template_opened_is_no_answer():
    draft = f"first idea:\n{RIGHT}\nno, wait"
    assert score_response(draft)["verdict"] == "accepted"
    assert score_response(draft, prefix="<think>\n")["verdict"] == "no_code"
    assert score_response(f"{draft}</think>\n{RIGHT}", prefix="<think>\n")["verdict"] == "accepted"


def test_tests_may_be_values_of_any_library():
    tests = json.loads(TESTS)
    arrays = {key: numpy.array(value, dtype=object) for key, value in tests.items()}
    for value in (tests, arrays, repr(tests), TESTS.encode(), pyarrow.scalar(tests)):
        assert score_response(RIGHT, tests=value)["verdict"] == "accepted"
        assert score_response(HALF, tests=value)["verdict"] == "wrong_answer"


def test_tests_that_are_no_text_are_read_once():
    tests = {"inputs": ["1\n"] * 3, "outputs": ["1"] * 3, "n": [0]}
    code._read_problem.cache_clear()
    for _ in range(3):
        code._read_problem("taco", code._freeze({**tests, "n": list(tests["n"])}), "all", "x")
    assert code._read_problem.cache_info().misses == 1
    code._read_problem("taco", code._freeze({**tests, "outputs": ["2"] * 3}), "all", "x")
    assert code._read_problem.cache_info().misses == 2


def test_a_row_of_livecodebench_is_graded_as_text_and_as_a_struct():
    row = {
        "public_test_cases": json.dumps(
            [{"input": "1 2", "output": "3", "testtype": "stdin"}],
        ),
        "private_test_cases": "[]",
        "metadata": "{}",
    }
    for value in (row, json.dumps(row)):
        assert score_response(RIGHT, tests=value, source="livecodebench")["score"] == 1.0


def test_extra_information_may_be_text():
    for extra in (None, "", '{"name": "sum"}', {"name": "sum", "tools": object()}):
        result = asyncio.run(code.compute_score("taco", RIGHT, TESTS, extra, workers=1))
        assert result["verdict"] == "accepted"


def test_the_error_of_a_bad_row_is_one_line_with_the_rows_name():
    tests = json.dumps({"inputs": ["1"], "outputs": []})
    for value in (tests, json.loads(tests), {"inputs\n": "\n"}):
        with pytest.raises(ValueError, match="^ground_truth of taco sum: ") as caught:
            score_response(RIGHT, tests=value)
        assert "\n" not in str(caught.value)
