"""A run of the recipe, its data and an evaluation, as their commands write them."""

import pytest

from verl_pipeline.evaluation.caveats import Caveat
from verl_pipeline.outputs.files import write_json, write_lines
from verl_pipeline.recipes.deepcoder.stages.stage_config import (
    REWARD_METRIC,
    TRUNCATED_SHARE_METRIC,
)

INTERVAL = {"value": 0.125, "low": 0.05, "high": 0.25}


@pytest.fixture
def folders(tmp_path):
    """Folders of run, data and evaluation."""
    run, data, evaluation = tmp_path / "run", tmp_path / "data", tmp_path / "eval"
    settings = {"data.max_response_length": "64", "data.train_batch_size": "4", "grpo_plus": "ours"}
    stage = {
        "first_step": 0,
        "start": 0,
        "batch": 4,
        "settings": settings,
        "attempts": [{}],
        "why": "last step",
    }
    for folder in (run / "short", data, evaluation):
        folder.mkdir(parents=True)
    stages = {
        "short": {**stage, "ended_at": 3},
        "long": {**stage, "first_step": 3, "ended_at": None, "why": None},
    }
    write_json(
        run / "stages.json",
        {"identity": {"actor_rollout_ref.model.path": "org/base"}, "stages": stages},
    )
    steps = [
        {REWARD_METRIC: 0.25, TRUNCATED_SHARE_METRIC: 0.5, "filters/skipped_update": 0.0},
        {REWARD_METRIC: 0.0, TRUNCATED_SHARE_METRIC: 1.0, "filters/skipped_update": 1.0},
        {REWARD_METRIC: 0.375, TRUNCATED_SHARE_METRIC: 0.25, "filters/skipped_update": 0.0},
    ]
    write_lines(
        run / "short" / "metrics.jsonl",
        ({"step": step, "data": row} for step, row in enumerate(steps, 1)),
    )
    source = {
        "rows": 10,
        "left": 7,
        "stages": {"verify": {"came": 10, "went": 3}},
        "origin": "a file",
    }
    report = {
        "sources": {"taco": source},
        "stages": ["verify"],
        "evaluations": {"humaneval": {}},
        "warnings": ["odd"],
    }
    write_json(data / "report.json", report)
    task = {
        "task": "humaneval",
        "title": "HumanEval",
        "pass@1": INTERVAL,
        "data": {"problems": 164, "sha256": "ab" * 32, "origin": "a file"},
        "options": {},
        "counts": {"samples": 328, "truncated": 5},
        "sampling": {"n": 2, "temperature": 0.6, "top_p": 1.0, "max_tokens": 128},
        "caveats": [Caveat("data_note", "few samples").as_dict()],
        "published": [
            {"model": "M", "value": 92.6, "measure": "pass@1", "source": "a paper", "note": ""}
        ],
    }
    model = {"name": "m", "weights": None}
    write_json(
        evaluation / "results.json", {"schema": 2, "model": model, "engine": {}, "tasks": [task]}
    )
    return run, data, evaluation
