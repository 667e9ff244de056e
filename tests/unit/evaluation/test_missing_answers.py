"""The caveat that (nearly) no sample held an answer, for each grader and in each output."""

import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.helpers.thinned import thin_out
from tests.helpers.verl_rows import make_row, write_answers, write_gsm8k, write_parquet
from verl_pipeline.cli import app
from verl_pipeline.evaluation.caveats import read_caveats
from verl_pipeline.evaluation.missing_answers import (
    MIN_ANSWERED_SHARE,
    count_answers,
    describe_missing_answers,
)
from verl_pipeline.evaluation.reward_functions import RewardCall, RewardFunction
from verl_pipeline.evaluation.score_tables import print_caveats
from verl_pipeline.evaluation.task import TaskItem, make_conversation
from verl_pipeline.grading.readers import read_taco

pytestmark = pytest.mark.timeout(300)

MARK = "NO ANSWERS"
TESTS = {"inputs": ["1\n"], "outputs": ["2\n"]}
QUESTION = make_conversation("?")
CALL = RewardCall(RewardFunction(), "openai/gsm8k", "5", {})
ITEMS = {
    "code": TaskItem("p", QUESTION, problem=read_taco(TESTS, name="p")),
    "math": TaskItem("p", QUESTION, answer="5"),
    "verl": TaskItem("p", QUESTION, reward=CALL),
}


def make_sample(grader: str, answered: bool, *, finish="stop", response="... #### 18"):
    """A sample with a wrong answer, or without one; a reward function tells only right ones."""
    row = {"response": response, "finish": finish, "answer": None, "reward": 0.0}
    if grader == "verl":
        return (
            row
            | {"verdict": "wrong_answer", "reward": float(answered)}
            | {"training_reward": 1.0 if answered else -1.0}
        )
    if not answered:
        return row | {"verdict": "no_code" if grader == "code" else "wrong_answer"}
    return row | {"verdict": "wrong_answer", "answer": "7" if grader == "math" else None}


def describe(grader, answered, missing, **fields):
    rows = [make_sample(grader, True)] * answered + [make_sample(grader, False, **fields)] * missing
    return list(describe_missing_answers(count_answers({"p": rows}, [ITEMS[grader]])))


@pytest.mark.parametrize("grader", ITEMS)
def test_no_answer_at_all_is_described_with_an_example_and_the_fix(grader):
    [text] = describe(grader, 0, 3)
    sought = {"code": "```python", "math": "\\boxed{", "verl": "the reward of verl is 0 or less"}
    fix = {
        "code": "style=prefill",
        "math": "options.parquet.grader=verl",
        "verl": "compare the form",
    }
    assert text.startswith(MARK) and sought[grader] in text and fix[grader] in text
    assert "'... #### 18'" in text and "\n" not in text and "3 " in text


@pytest.mark.parametrize("grader", ["code", "math"])
def test_the_threshold_is_a_share_of_the_samples(grader):
    assert MIN_ANSWERED_SHARE == 0.1
    assert describe(grader, 10, 90) == [] and len(describe(grader, 9, 91)) == 1
    assert describe(grader, 1, 0) == [] and len(describe(grader, 0, 1)) == 1


def test_one_positive_reward_shows_that_answers_are_read():
    assert describe("verl", 1, 999) == [] and len(describe("verl", 0, 999)) == 1


@pytest.mark.parametrize("grader", ITEMS)
def test_responses_that_were_cut_off_are_named_as_the_cause(grader):
    assert "max_tokens" not in describe(grader, 0, 4)[0]
    assert (
        "4 responses were cut off: raise sampling.max_tokens"
        in (describe(grader, 0, 4, finish="length")[0])
    )


def test_the_shown_end_is_one_short_line():
    [text] = describe("math", 0, 1, response="x\ny" * 10_000)
    assert len(text) < 700 and "\n" not in text


def test_each_grader_of_a_task_is_judged_alone():
    items = [ITEMS["math"], TaskItem("q", QUESTION, problem=ITEMS["code"].problem)]
    rows = {"p": [make_sample("math", True)], "q": [make_sample("code", False)]}
    [text] = describe_missing_answers(count_answers(rows, items))
    assert "the grader code" in text


@pytest.mark.parametrize("grader", thin_out(["code", "math", "verl"], keep=1))
def test_it_is_a_caveat_and_loud(tmp_path, grader):
    if grader == "code":
        row = make_row(0, "taco", json.dumps(TESTS))
        data = write_parquet(tmp_path / "val.parquet", [row])
    else:
        data = write_gsm8k(tmp_path / "val.parquet", ["18"])
    response = "the answer is 18, or rather \\boxed{18}" if grader == "verl" else "#### 18"
    answers = write_answers(tmp_path / "a.jsonl", [response])
    out = tmp_path / "out"
    arguments = ["eval", "--model", str(answers), "--tasks", "parquet", "--n", "1"]
    arguments += [f"options.parquet.file={data}", f"options.parquet.grader={grader}"]
    run = CliRunner().invoke(app, [*arguments, "--output", str(out)], env={"COLUMNS": "300"})
    assert run.exit_code == 0 and f"parquet: {MARK}" in run.output
    results = json.loads((out / "results.json").read_text())
    [caveat] = [one for one in read_caveats(results["tasks"][0]) if one.kind == "no_answers"]
    assert response[-20:] in caveat.text.replace("\\\\", "\\")
    assert MARK in (out / "report.html").read_text()
    shown = Console(force_terminal=True, color_system="standard", width=1000)
    with shown.capture() as capture:
        print_caveats(shown, "parquet", [caveat])
    assert "\x1b[1;31m" in capture.get(), "bold and red"


def test_empty_answers_that_were_asked_for_are_no_surprise(tmp_path):
    data = write_gsm8k(tmp_path / "val.parquet", ["18"])
    arguments = ["eval", "--model", "empty", "--tasks", "parquet", "--n", "1"]
    arguments += [f"options.parquet.file={data}", "--output", str(tmp_path / "out")]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0 and MARK not in run.output
