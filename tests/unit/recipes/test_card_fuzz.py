"""`verl_pipeline.recipes.deepcoder.card` with broken files of a run, its data and an evaluation."""

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
from verl_pipeline.recipes.deepcoder.stages.stage_config import (
    REWARD_METRIC,
    TRUNCATED_SHARE_METRIC,
)

pytestmark = pytest.mark.medium
STATE, METRICS, REPORT = "run/stages.json", "run/short/metrics.jsonl", "data/report.json"
RESULTS = "eval/results.json"
STAGE = {
    "first_step": 0,
    "start": 0,
    "batch": 4,
    "settings": {"data.max_response_length": "64", "grpo_plus": "ours"},
    "attempts": [{"number": 1, "resumed_from": 0, "exit_code": 0}],
    "ended_at": 3,
    "why": "last step",
    "status": "done",
}
INTERVAL = {"value": 0.125, "low": 0.05, "high": 0.25}
CARD = FuzzedCommand(
    name="card",
    module="verl_pipeline.recipes.deepcoder.card",
    arguments=("run", "--data", "data", "--evaluation", "eval"),
    files={
        STATE: {
            "version": 1,
            "identity": {"actor_rollout_ref.model.path": "org/base"},
            "stages": {"short": STAGE, "long": {**STAGE, "ended_at": None, "why": None}},
        },
        METRICS: [
            {
                "step": step,
                "data": {
                    REWARD_METRIC: 0.25,
                    TRUNCATED_SHARE_METRIC: 0.5,
                    "filters/skipped_update": 0.0,
                },
            }
            for step in (1, 2)
        ],
        REPORT: {
            "sources": {
                "taco": {
                    "rows": 10,
                    "left": 7,
                    "stages": {"verify": {"came": 10, "went": 3}},
                    "origin": "a file",
                }
            },
            "stages": ["verify"],
            "evaluations": {"humaneval": {}},
            "warnings": ["odd"],
        },
        RESULTS: {
            "schema": 2,
            "model": {"name": "m", "weights": None},
            "engine": {},
            "tasks": [
                {
                    "task": "humaneval",
                    "title": "HumanEval",
                    "pass@1": INTERVAL,
                    "data": {"problems": 164, "sha256": "ab" * 32, "origin": "a file"},
                    "options": {},
                    "counts": {"samples": 328, "truncated": 5},
                    "sampling": {"n": 2, "temperature": 0.6, "top_p": 1.0, "max_tokens": 128},
                    "caveats": [{"kind": "data_note", "text": "few", "label": "", "bars": False}],
                    "published": [
                        {
                            "model": "M",
                            "value": 92.6,
                            "measure": "pass@1",
                            "source": "a paper",
                            "note": "",
                        }
                    ],
                }
            ],
        },
    },
    exit_codes=frozenset({0, 2}),
    preload=("huggingface_hub.repocard",),
)
FILES = (STATE, METRICS, REPORT, RESULTS)
OPTIONS = ["--data", "--evaluation", "--model", "--name", "--base-model"]
every_file = pytest.mark.parametrize("slot", FILES)


def test_good_files_make_a_card():
    answer = run_command(CARD)
    assert answer.exit_code == 0 and "written" in answer.output, answer.output


@every_file
@each_damage
def test_damaged_file(slot, damage):
    if slot == METRICS and damage in (
        "missing",
        "a dangling link",
        "cut in the middle",
        "zeros only",
    ):
        pytest.skip("a stage that has just begun, or was killed, leaves such a file")
    check_answer(CARD, damage_file(slot, damage))


@every_file
@efforts(quick=5, many=1000)
def test_broken_contents(slot, effort):
    check_answers(CARD, broken_contents(CARD, slot), effort)


@efforts(quick=5, many=100)
def test_broken_arguments(effort):
    check_answers(CARD, broken_arguments(CARD, OPTIONS), effort)
