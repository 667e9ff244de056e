"""Votes by behaviour: generated inputs, programs in the real sandbox, and what is stored."""

import contextlib
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.helpers.small_task import load_problems
from verl_pipeline.evaluation import scores
from verl_pipeline.evaluation.answer_methods import load_scorer
from verl_pipeline.evaluation.behaviours import add_behaviours, compare_outputs, has_behaviours
from verl_pipeline.evaluation.distinguishing_inputs import _list_calls, make_inputs
from verl_pipeline.evaluation.eval_settings import BehaviourConfig, ResponseGraderConfig
from verl_pipeline.evaluation.graders import Grader
from verl_pipeline.evaluation.task import TaskItem, make_conversation
from verl_pipeline.grading.readers import read_humaneval

ITEMS = {item.id: item for item in load_problems(None).items}
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def grader():
    with contextlib.closing(Grader(ResponseGraderConfig(workers=2))) as grader:
        yield grader


def make_rows(item, *programs, **fields):
    return [
        {
            "id": item,
            "sample": number,
            "response": f"```python\n{program}\n```",
            "answer": program,
            "reward": float("right" in program),
            "shown": None,
            "tokens": 10,
            "prompt_tokens": 1,
            "mean_logprob": -1.0,
            "finish": "stop",
            **fields,
        }
        for number, program in enumerate(programs)
    ]


def make_function_item(prompt):
    problem = dataclasses.replace(ITEMS["f"].problem)
    return TaskItem("f", make_conversation(prompt), problem)


def test_programs_that_do_the_same_vote_together(grader, tmp_path):
    """Two right programs, written differently, outvote two copies of a wrong one."""
    rows = make_rows(
        "f",
        "def f(x):\n    return x - 1",
        "def f(x):\n    return x - 1",
        "def f(x):\n    return x + 1  # right",
        "def f(x):\n    return 1 + x  # right",
        "def f(x):\n    y = x\n    return y + 1  # right",
        "def f(x):\n    raise ValueError",
    )
    graded, item = {"f": rows}, make_function_item("Write f. For instance f(3) == 4.")
    config = BehaviourConfig(inputs=8)
    counts = add_behaviours(graded, [item], config, grader, tmp_path, QUIET)
    assert counts["problems"] == counts["distinguished"] == 1 and counts["failed"] == 0
    keys = [row["behaviour"] for row in rows]
    assert keys[0] == keys[1] != keys[2] == keys[3] == keys[4] and keys[5] is None
    for row in rows:
        row["verdict"], row["reason"] = "x", ""
    found = scores.estimate_scores(graded, [item], load_scorer("mean_logprob"), "x")
    by_name = {row["name"]: row for row in found["methods"]}
    assert by_name["vote of 6"]["value"] == 0.0, "by syntax the two copies win"
    assert by_name["vote of 6 by behaviour"]["value"] == 1.0
    assert by_name["vote of 6 by behaviour"]["gain"]["value"] == 1.0


def test_behaviours_are_stored_and_reused_for_the_same_programs_only(grader, tmp_path):
    config, item = BehaviourConfig(inputs=3), make_function_item("f(1)")
    programs = "def f(x):\n    return x", "def f(x):\n    return 2 * x"

    def observe(*programs):
        graded = {"f": make_rows("f", *programs)}
        add_behaviours(graded, [item], config, grader, tmp_path, QUIET)
        return [row["behaviour"] for row in graded["f"]]

    first = observe(*programs)
    path = tmp_path / "behaviours.jsonl"
    assert observe(*programs) == first and len(path.read_text().splitlines()) == 1
    observe(programs[0], "def f(x):\n    return 3 * x")
    assert len(path.read_text().splitlines()) == 2


def test_standard_input_and_a_program_that_fails_the_examples(grader, tmp_path):
    rows = make_rows("again", "print(2 * int(input()))", "print(int(input()) + 1)", "print(2)")
    rows[2]["shown"] = False
    counts = add_behaviours(
        {"again": rows}, [ITEMS["again"]], BehaviourConfig(inputs=6), grader, tmp_path, QUIET
    )
    assert counts["inputs"] >= 1
    assert rows[0]["behaviour"] != rows[1]["behaviour"] and rows[2]["behaviour"] is None


def test_other_problems_vote_by_their_answers(grader, tmp_path):
    rows = make_rows("number", "204", "7")
    counts = add_behaviours(
        {"number": rows}, [ITEMS["number"]], BehaviourConfig(inputs=6), grader, tmp_path, QUIET
    )
    assert [row["behaviour"] for row in rows] == ["204", "7"] and counts["problems"] == 0


def test_without_behaviours_there_is_no_vote_by_them():
    assert not has_behaviours({"f": make_rows("f", "x")})
    assert not has_behaviours({"f": make_rows("f", "x", behaviour=None)})


def test_an_endless_program_and_one_of_another_arity_are_failures(grader):
    problem = ITEMS["f"].problem
    run = grader.run_program
    assert run(problem, "def f(x):\n    while x: pass\n    return 5", "f", [(0,), (1,)], 0.2) == [
        json.dumps([5]),
        None,
    ]
    assert run(problem, "def f():\n    return 5", "f", [(0,)], 1.0) == [None]
    assert run(problem, "def f(x):\n    return {3, 1, 2}", "f", [(0,)], 1.0) == run(
        problem, "def f(x):\n    return {2, 3, 1}", "f", [(0,)], 1.0
    )


def test_inputs_come_from_the_prompt_and_never_from_hidden_tests():
    row = {
        "task_id": "HumanEval/0",
        "prompt": 'def f(a, b):\n    """\n    >>> f([1, 2], "x")\n    3\n    """\n',
        "test": "def check(candidate):\n    assert candidate([777], 'secret') == 1\n",
        "entry_point": "f",
    }
    item = TaskItem("h", make_conversation(row["prompt"]), read_humaneval(row))
    inputs = make_inputs(item, ["def f(a, b): pass"], 40)
    assert inputs[0] == ([1, 2], "x") and len(inputs) > 10
    assert "777" not in repr(inputs) and "secret" not in repr(inputs)
    assert inputs == make_inputs(item, ["def f(a, b): pass"], 40)
    hidden = ITEMS["double"]
    assert hidden.problem.public == 0 and make_inputs(hidden, ["print(1)"], 9) == []


def test_without_examples_the_programs_say_how_many_arguments_there_are():
    item = make_function_item("Write f.")
    programs = ["def f(a, b): return a", "def f(c, d): return d", "def f(x): return x", "def ("]
    inputs = make_inputs(item, programs, 12)
    assert len(inputs) == 12 and {len(arguments) for arguments in inputs} == {2}
    assert make_inputs(item, ["def g(): pass"], 12) == []


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("f(1, 2) == 3", [(1, 2)]),
        ("f((1, 2), ')')", [((1, 2), ")")]),
        ("def f(a, b):", []),
        ("f(f(1))", [(1,)]),
        ("f(1", []),
        ("xf(1)", []),
        ("f()", []),
    ],
)
def test_calls_in_a_text(text, calls):
    assert _list_calls(text, "f") == calls


@given(st.dictionaries(st.text(max_size=3), st.tuples(*[st.sampled_from(["1", "2", None])] * 3)))
def test_programs_have_one_behaviour_exactly_if_they_answer_alike(outputs):
    _count, keys = compare_outputs(outputs)
    for a in outputs:
        assert (keys[a] is None) == (set(outputs[a]) == {None})
        for b in outputs:
            if keys[a] is not None and keys[b] is not None:
                assert (keys[a] == keys[b]) == (outputs[a] == outputs[b])
