"""What a validation counts, through verl's own means."""

import asyncio
import json
import math

import pytest
import torch
import verl.trainer.ppo.v1  # noqa: F401  (registers our trainers; they import each other)
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_pipeline.metrics import find_metric
from verl_pipeline.rewards import code
from verl_pipeline.trainer.batch import compute_reward_metrics
from verl_pipeline.trainer.validation import select_graded
from verl_pipeline.verl_adapter.trainers.filtering_trainer import FilteredSyncTrainer

NAN = float("nan")


def count_validation(values, *, uids=None, sources=None, samples=1):
    """verl's metrics of a validation; ``values`` by key, one a sample."""
    n = len(values["reward"])
    uids = uids or [f"u{row}" for row in range(n)]
    sources = sources or ["tiny"] * n
    expected = {(source, uid): samples for source, uid in zip(sources, uids, strict=True)}
    trainer = object.__new__(FilteredSyncTrainer)
    return trainer._val_metrics_update(sources, uids, values, [2] * n, expected_acc_counts=expected)


@pytest.mark.parametrize("failed", [NAN, math.inf, -math.inf, None, 1e39])
def test_a_sample_without_a_reward_is_left_out_and_counted(failed):
    metrics = count_validation({"reward": [1.0, failed, 0.0], "acc": [1.0, None, 0.0]})
    assert metrics["val-core/tiny/acc/mean@1"] == 0.5
    assert metrics["val-aux/tiny/reward/mean@1"] == 0.5
    assert metrics["pipeline/validation/ungraded"] == 1
    assert all(math.isfinite(value) for value in metrics.values())


def test_a_verdict_of_infrastructure_is_left_out_too():
    values = {
        "reward": [1.0, 0.0, 1.0],
        "acc": [1.0, 0.0, 1.0],
        "verdict": ["accepted", "infrastructure", "accepted"],
        "reason": ["", "the grader was killed", ""],
    }
    metrics = count_validation(values)
    assert metrics["val-core/tiny/acc/mean@1"] == 1.0
    assert metrics["pipeline/validation/ungraded"] == 1
    assert not [name for name in metrics if "verdict" in name]  # no grader gives its name
    graded = select_graded(["tiny"] * 3, ["a", "b", "c"], values, None)
    assert graded.rows == [0, 2] and graded.first_reason == "the grader was killed"
    assert graded.expected is None


def test_an_answer_that_was_never_given_still_counts_as_verl_counts_it():
    """verl: an answer that is missing is an ``acc`` of 0. That one was not graded is no reason."""
    metrics = count_validation(
        {"reward": [1.0, NAN], "acc": [1.0, NAN]}, uids=["u", "u"], samples=3
    )
    assert metrics["val-core/tiny/acc/mean@2"] == 0.5


def test_if_nothing_was_graded_there_is_no_mean():
    metrics = count_validation({"reward": [NAN, NAN], "acc": [NAN, NAN]})
    assert metrics == {"pipeline/validation/ungraded": 2.0}


@pytest.mark.parametrize(
    "column",
    [
        [1.0, NAN, None],
        [1.0, math.inf, None],
        [1.0, "none", None],
        ["none", 1.0, None],
        [1.0, [0.5, 0.5], None],
        [torch.tensor(1.0), {"why": 1}, None],
    ],
    ids=str,
)
def test_a_value_that_is_no_number_among_numbers_is_left_out_of_its_key_only(column):
    metrics = count_validation({"reward": [1.0, 0.0, 0.5], "format": column})
    assert metrics["val-aux/tiny/format/mean@1"] == 1.0
    assert metrics["val-core/tiny/reward/mean@1"] == 0.5
    assert metrics["pipeline/validation/values/format"] == 1
    assert metrics["pipeline/validation/ungraded"] == 0


def test_text_and_answers_for_a_vote_stay_as_they_are():
    values = {
        "reward": [1.0, 0.0, 1.0],
        "acc": [1.0, 0.0, 1.0],
        "pred": ["4", 5, "4"],
        "reason": ["", "x", ""],
    }
    metrics = count_validation(values, uids=["u"] * 3, samples=3)
    assert metrics["val-core/tiny/acc/maj@3/mean"] > 0.5
    assert not [name for name in metrics if "values" in name]


def grade_programs(copies):
    """What the code reward reports of a right and a wrong program, and of no program."""
    tests = json.dumps({"inputs": ["1\n"], "outputs": ["1\n"]})
    fence = "```"
    texts = [f"{fence}python\nprint({text})\n{fence}" for text in ("input()", "2")] + ["no code"]
    reports = [
        asyncio.run(code.compute_score("taco", text, tests, workers=1)) for text in texts
    ] * copies
    columns = {name: [report[name] for report in reports] for name in reports[0]}
    return {"reward": columns["score"], **columns}


def list_keys(metrics):
    """Keys of one data source in ``val-core`` and ``val-aux``."""
    return {name.split("/")[2] for name in metrics if "/tiny/" in name}


def test_no_figure_of_a_grader_is_a_score_of_the_validation():
    values = grade_programs(2)
    metrics = count_validation(values, uids=["u"] * 6, samples=6)
    assert list_keys(metrics) == {"reward", "acc", "acc_success_only"}
    for verdict in ("accepted", "wrong_answer", "no_code"):
        share = metrics[f"pipeline/validation/code/verdict/{verdict}"]
        assert share == pytest.approx(1 / 3)
    assert all(find_metric(name) for name in metrics)
    # verl's own trainer gets the same report, and logs `score` beside the reward.
    stock = PPOTrainerSync._val_metrics_update(
        object.__new__(PPOTrainerSync), ["tiny"] * 6, ["u"] * 6, values, [2] * 6
    )
    assert list_keys(stock) == {"reward", "score", "acc"}
    # In training they are metrics of their own.
    reports = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    assert compute_reward_metrics(reports)["reward/code/cpu_s/p95"] > 0


def test_a_score_that_is_not_the_reward_stays():
    metrics = count_validation({"reward": [1.0, 0.5], "score": [0.0, 0.5]})
    assert metrics["val-aux/tiny/score/mean@1"] == 0.25
    metrics = count_validation({"reward": [1.0, 0.5], "score": [1.0, 0.5]})
    assert list_keys(metrics) == {"reward"}
