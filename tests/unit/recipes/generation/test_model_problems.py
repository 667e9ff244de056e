"""Problems of a scripted model: which stay, why the others do not, and a server that fails."""

import json
from collections import Counter

import pytest
from rich.console import Console

from tests.helpers.chat_server import complete, serve_chat
from tests.helpers.scripted_author import STORIES, ScriptedAuthor, write_answer
from verl_pipeline.recipes.deepcoder.generation.candidates import Rejection
from verl_pipeline.recipes.deepcoder.generation.generation import Generation
from verl_pipeline.recipes.deepcoder.generation.generation_loader import load_generation
from verl_pipeline.recipes.deepcoder.generation.model_prompts import read_proposal

pytestmark = pytest.mark.medium

EXPECTED = {
    "tally": None,
    "quibble": "solvers disagree with the reference",
    "wrangle": "the reference fails the tests that it came with",
    "wobble": "the reference is not deterministic",
    "forever": "the generator does not end in time",
    "double": None,
}


@pytest.fixture
def server():
    with serve_chat() as state:
        yield state


@pytest.fixture
def make_rows(tmp_path, server, interpreters):
    """A function that runs the method ``model`` alone; returns rows and warnings."""

    def run(*settings):
        config, preparation = load_generation(
            None,
            [
                "methods=[model]",
                f"output={tmp_path / 'out'}",
                "model.name=m",
                f"model.engine.url={server.url}",
                "model.engine.tries=1",
                "model.engine.concurrency=1",  # the script counts the solutions of a story
                f"model.problems={len(STORIES)}",
                "time.generator_s=0.3",
                "mutation.mutants=5",
                *settings,
            ],
        )
        (tmp_path / "out" / "work").mkdir(parents=True, exist_ok=True)
        generation = Generation(config, preparation, Console(quiet=True))
        return generation.make_rows(config.methods[0], interpreters), generation.warnings

    return run


def list_reasons(rows):
    return [row.skip_reason and row.skip_reason.partition(":")[0] for row in rows]


def test_only_agreed_problems_stay_and_each_fault_has_its_reason(server, make_rows):
    server.reply = ScriptedAuthor()

    rows, warnings = make_rows()

    assert list_reasons(rows) == list(EXPECTED.values()) and warnings == []
    tally = rows[0]
    assert (tally.generation["solvers"], tally.generation["agreeing"]) == (4, 2)
    assert tally.generation["killed"] > 0 and tally.tests["fn_name"] == "solve"
    assert tally.generation["way"] == "evolve" and rows[5].generation["way"] == "translate"
    solver_prompts = [
        body["messages"][-1]["content"]
        for body in server.bodies
        if "called tally." in body["messages"][-1]["content"]
    ]
    # No solver sees the reference or a test.
    assert solver_prompts and not any("v > limit" in text for text in solver_prompts)
    assert all("def solve(values, limit):" in text for text in solver_prompts)


def test_a_rerun_asks_for_nothing(server, make_rows):
    server.reply = ScriptedAuthor()
    rows, _warnings = make_rows()
    server.bodies.clear()
    server.models = (500, {}, {})  # the server may be gone

    again, _warnings = make_rows()

    assert again == rows and server.bodies == []


def test_a_server_that_fails_half_of_the_time_costs_repetitions_only(server, make_rows):
    server.reply = ScriptedAuthor(failing=0.5)

    rows, warnings = make_rows("model.rounds=40")

    # Which story an answer tells depends on which request came through first.
    assert Counter(list_reasons(rows)) == Counter(EXPECTED.values()) and warnings == []


def test_what_the_server_failed_to_give_is_asked_for_by_the_next_call(server, make_rows):
    author = ScriptedAuthor()
    lost = {"evolve": True}

    def reply(body):
        text = body["messages"][-1]["content"]
        if lost["evolve"] and "that is harder than the one below" in text:
            return 500, {"error": {"message": "planted"}}, {}
        return author(body)

    server.reply = reply
    rows, warnings = make_rows("model.rounds=1")
    reasons = list_reasons(rows)
    assert reasons[0] == reasons[3] == "the server gave no answer"
    assert len(warnings) == 1 and "failed 2 requests" in warnings[0] and "planted" in warnings[0]
    stored = [row for row in rows if row.skip_reason is None]

    lost["evolve"] = False
    rows, warnings = make_rows("model.rounds=1")

    assert "the server gave no answer" not in list_reasons(rows) and warnings == []
    assert [row for row in rows if row in stored] == stored


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("### Generator", "### Maker", "the model's answer lacks a part"),
        ("```python\ndef solve", "def solve", "the model's answer lacks a part"),
        ("```json", "```json\n{", "the model's tests cannot be read"),
        ("[[1, 5], 2]", '"1 5"', "the model's tests cannot be read"),
    ],
)
def test_an_answer_without_a_part_is_rejected_with_its_name(old, new, reason):
    answer = write_answer(STORIES[0])
    assert old in answer and read_proposal("1", answer, "evolve", []).entry_point == "solve"

    with pytest.raises(Rejection) as found:
        read_proposal("1", answer.replace(old, new), "evolve", [])

    assert found.value.reason == reason


def test_thoughts_are_no_part_of_the_answer():
    answer = f"<think>\n### Problem\nno\n### Tests\nno</think>\n{write_answer(STORIES[0])}"

    candidate = read_proposal("1", answer, "translate", ["a/1"])

    assert candidate.question.endswith("called tally.") and len(candidate.given) == 2
    assert json.loads(json.dumps(candidate.notes)) == {
        "method": "model",
        "way": "translate",
        "seeds": ["a/1"],
    }


def test_a_model_writes_the_inputs_that_strengthen_known_problems(
    server, make_rows, tmp_path, interpreters
):
    tests = {"inputs": [[[1, 5], 3], [[2], 4]], "outputs": [[5], []], "fn_name": "f"}
    row = {
        "question": "Keep what exceeds.",
        "input_output": json.dumps(tests),
        "solutions": ["def f(values, least):\n    return [v for v in values if v > least]\n"],
    }
    (tmp_path / "taco.jsonl").write_text(json.dumps(row) + "\n")
    generator = "def generate_inputs(rng):\n    return [[7, rng.randint(8, 99)], 7]\n"

    def reply(body):
        if "Write a Python function\n`generate_inputs(rng)`" in body["messages"][-1]["content"]:
            return complete(f"```python\n{generator}```")
        return complete("2")

    server.reply = reply
    rows, _warnings = make_rows(
        f"data={tmp_path}",
        "methods=[strengthen]",
        "strengthen.sources={taco: {}}",
        "strengthen.generator=model",
        "strengthen.opinions=1",
    )

    [row] = rows
    assert row.generation["added"] and row.generation["killed"] > row.generation["killed_before"]
    assert all(given[1] == 7 for given in row.tests["inputs"][2:])
