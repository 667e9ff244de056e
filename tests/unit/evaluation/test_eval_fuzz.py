"""`verl-pipeline eval` with broken files of answers, settings and data, and broken arguments."""

import pytest

from tests.helpers.broken_inputs import broken_arguments, broken_contents
from tests.helpers.command_fuzz import (
    FuzzedCommand,
    check_answer,
    check_answers,
    efforts,
    run_command,
)
from tests.helpers.damaged_files import damage_file, each_damage

pytestmark = pytest.mark.medium
ANSWERS, SETTINGS, GSM8K, ROWS = "answers.jsonl", "eval.yaml", "data/gsm8k.jsonl", "rows.parquet"
MATH_ROW = {
    "data_source": "openai/gsm8k",
    "prompt": [{"role": "user", "content": "1 + 1?"}],
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "2"},
    "extra_info": {"name": "sum", "index": 0},
}
EVAL = FuzzedCommand(
    name="eval",
    module="verl_pipeline.cli",
    arguments=(
        *("eval", "--config", SETTINGS, "--model", ANSWERS, "--output", "out", "--data", "data"),
        *("--tasks", "gsm8k,parquet"),
    ),
    files={
        ANSWERS: [
            {"id": "test-0", "task": "gsm8k", "response": "\\boxed{8}"},
            {"id": "test-1", "task": "gsm8k", "response": "\\boxed{7}"},
            {"id": "sum", "task": "parquet", "response": "\\boxed{2}"},
            {"id": "other", "task": "parquet", "response": "\\boxed{2}"},
        ],
        SETTINGS: {
            "hub": False,
            "limit": 5,
            "style": "chat",
            "system": "Answer.",
            "train_data": [],
            "sampling": {"n": 1, "temperature": 0.5, "top_p": 1.0, "max_tokens": 64, "seed": 1},
            "engine": {"kind": "vllm", "concurrency": 2, "timeout_s": 5.0, "may_drop": []},
            "grader": {"tier": "namespaces", "workers": 1, "url": None},
            "refine": {"n": 0, "agreement": 0.5},
            "options": {"parquet": {"file": ROWS, "grader": "math", "source": ""}},
        },
        # One row is broken at a time: the others are evaluated.
        GSM8K: [
            {"question": "3 + 5?", "answer": "The sum.\n#### 8"},
            {"question": "2 + 5, which is less than 9?", "answer": "The sum.\n#### 7"},
        ],
        ROWS: [MATH_ROW, MATH_ROW | {"extra_info": {"name": "other", "index": 1}}],
    },
    exit_codes=frozenset({0, 2, 3}),
    links=frozenset({"id", "name", "task", "file", "grader", "source", "index", "options"}),
    settings_file=SETTINGS,
    preload=(
        "verl_pipeline.evaluation.evaluation_run",
        "verl_pipeline.evaluation.results_page",
        "verl_pipeline.rewards.math",
        "verl_pipeline.verl_adapter.checks.data_files",
    ),
)
FILES = (ANSWERS, SETTINGS, GSM8K, ROWS)
OPTIONS = [
    *("--tasks", "--n", "--config", "--data", "--model", "limit=", "sampling.temperature="),
    *("engine.kind=", "engine.url=", "grader.workers=", "options.parquet.file=", "train_data="),
]
every_file = pytest.mark.parametrize("slot", FILES)


def test_good_files_are_evaluated():
    answer = run_command(EVAL)
    assert answer.exit_code == 0 and "100" in answer.output, answer.output


@every_file
@each_damage
def test_damaged_file(slot, damage):
    if slot == ROWS and damage in ("UTF-16", "UTF-32"):
        pytest.skip("a parquet file is not text")
    if slot == GSM8K and damage in ("missing", "a dangling link"):
        pytest.skip("the message lists all names that such a file may have")
    check_answer(EVAL, damage_file(slot, damage))


# Rows of a parquet file have one type a column: what may stand there is in test_row_graders.py.
@pytest.mark.parametrize("slot", [ANSWERS, SETTINGS, GSM8K])
@efforts(quick=2, many=200)
def test_broken_contents(slot, effort):
    check_answers(EVAL, broken_contents(EVAL, slot), effort)


@efforts(quick=3, many=100)
def test_broken_arguments(effort):
    check_answers(EVAL, broken_arguments(EVAL, OPTIONS), effort)
