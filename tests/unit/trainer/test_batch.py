"""What graders report becomes metrics, and what they could not grade is counted."""

import json
from dataclasses import replace

import numpy as np
import pytest

from verl_pipeline.filters import BatchView
from verl_pipeline.trainer.batch import (
    SamplingReport,
    StalenessViolation,
    TooManyFailures,
    TrajectoryBatch,
    check_failures,
    check_held_version,
    check_validation,
    check_versions,
    compute_reward_metrics,
    compute_sampling_metrics,
)
from verl_pipeline.trainer.pipeline_config import ConfigError
from verl_pipeline.trainer.schedule import IN_FLIGHT, ROLLING, Dial


def test_shares_of_verdicts_and_quantiles_of_seconds():
    rows = [
        {
            "grader": "code",
            "verdict": verdict,
            "tier": "rlimits",
            "figures": json.dumps({"grading_s": float(n), "busy": 2}),
            "reason": "",
        }
        for n, verdict in enumerate(["accepted", "wrong_answer", "wrong_answer", "infrastructure"])
    ]
    found = compute_reward_metrics([*rows, {}, {"acc": 1.0}])
    assert found["reward/code/tier/rlimits"] == 1.0
    assert (
        found["reward/code/verdict/wrong_answer"] == 0.5
        and found["reward/code/verdict/accepted"] == 0.25
    )
    assert found["reward/code/grading_s/p50"] == 1.5 and found[
        "reward/code/grading_s/p95"
    ] == pytest.approx(2.85)
    assert found["reward/code/busy/p50"] == 2.0 and not any("reason" in key for key in found)


def test_rewards_without_a_grader_report_nothing():
    assert compute_reward_metrics([{"verdict": "accepted"}, {}]) == {}


def test_values_that_only_some_report_or_that_are_no_numbers_do_no_harm():
    rows = [
        {"grader": "mine", "verdict": "accepted", "figures": '{"wait_s": 1.0}'},
        {"grader": "mine", "verdict": ["odd"], "figures": '{"wait_s": NaN, "busy": 2}'},
        {"grader": "mine", "figures": '{"wait_s": "soon", "other_s": null}'},
        *({"grader": "mine", "figures": text} for text in ("", "{", "[1]", "3", None, 4, b"{}")),
        {"grader": 7, "figures": '{"wait_s": 3.0}'},
        {"grader": None, "figures": '{"wait_s": 5.0}'},
    ]
    found = compute_reward_metrics(rows)
    assert found["reward/mine/wait_s/p50"] == 1.0 and found["reward/mine/busy/p95"] == 2.0
    assert found["reward/mine/verdict/['odd']"] == 1 / 10 and found["reward/7/wait_s/p50"] == 3.0
    assert not any("other_s" in name or "None" in name for name in found)


@pytest.mark.parametrize("oldest, staleness", [(0, 1), (1, 0)])
def test_a_batch_of_a_checkpoint_may_be_too_old_for_the_staleness(oldest, staleness):
    check_held_version(3, oldest + 1, staleness)
    with pytest.raises(ConfigError, match=f"holds batch 3, sampled with v_{oldest}, too old"):
        check_held_version(3, oldest, staleness)


def test_a_batch_of_an_earlier_run_has_no_time_of_submission():
    spans = np.array([[1, 1], [0, 2]])
    batch = make_batch(["accepted", "accepted"], [None, None])
    batch = replace(batch, generated_at=12.5, completed_at=14.0, version_spans=spans)
    found = compute_sampling_metrics(batch, 3, submitted_at=10.0)
    ages = {"pipeline/staleness": 2.0, "pipeline/staleness/mean": 1.0, "pipeline/mixed_share": 0.5}
    assert found == ages | {"pipeline/batch/generating_s": 2.5, "pipeline/batch/complete_s": 4.0}
    assert compute_sampling_metrics(batch, 3, submitted_at=None) == ages


@pytest.mark.parametrize(
    "span, dial, fault",
    [
        ((2, 2), Dial(ROLLING, 2), None),
        ((4, 4), Dial(ROLLING, 2), None),
        ((1, 1), Dial(ROLLING, 2), "staleness 2 allows v_2..v_4"),
        ((5, 5), Dial(ROLLING, 2), "staleness 2 allows v_2..v_4"),
        ((2, 3), Dial(ROLLING, 2), "rolling samples with one version"),
        ((2, 4), Dial(IN_FLIGHT, 2), None),
        ((1, 4), Dial(IN_FLIGHT, 2), "staleness 2 allows v_2..v_4"),
    ],
)
def test_past_the_barrier_the_oldest_token_counts(span, dial, fault):
    batch = make_batch(["accepted", "accepted"], [None, None])
    batch = replace(batch, version_spans=np.array([[4, 4], span]))
    if fault is None:
        check_versions(batch, 5, None, dial)
    else:
        with pytest.raises(StalenessViolation, match=fault):
            check_versions(batch, 5, None, dial)


def make_batch(verdicts, reasons):
    n = len(verdicts)
    view = BatchView(
        uids=["b1p0"] * n,
        sessions=np.arange(n) // 2,
        rewards=np.array([np.nan if verdict == "infrastructure" else 1.0 for verdict in verdicts]),
        verdicts=verdicts,
        response_lengths=np.ones(n, dtype=int),
        limits=np.ones(n, dtype=int),
        truncated=np.zeros(n, dtype=bool),
    )
    spans = np.zeros((n, 2), dtype=int)
    reports = [{"reason": reason} if reason else {} for reason in reasons]
    return TrajectoryBatch(
        [f"b1p0_{row // 2}_{row % 2}" for row in range(n)], spans, view, reports, 0.0
    )


def test_what_could_not_be_graded_counts_once_a_trajectory_and_its_reason_is_shown():
    """A member that its agent loop split has two rows here."""
    batch = make_batch(
        ["accepted", "accepted", "infrastructure", "infrastructure"], [None, None, "it is NaN", ""]
    )
    report = SamplingReport({"b1p0": 4}, missing=1, first_error=None)
    assert check_failures(1, report, batch, 0.5) == {
        "pipeline/infrastructure/missing": 1.0,
        "pipeline/infrastructure/verdicts": 1.0,
        "pipeline/infrastructure/share": 0.5,
    }
    with pytest.raises(
        TooManyFailures, match=r"1 failed and 1 could not be graded: 50 % .*\n.*NaN"
    ):
        check_failures(1, report, batch, 0.4)


def test_a_trajectory_in_several_rows_is_reported_once():
    batch = make_batch(["accepted", "accepted", "wrong", "wrong"], [None] * 4)
    reports = [{"grader": "code", "verdict": verdict} for verdict in batch.view.verdicts]
    once = replace(batch, reward_reports=reports).session_reports
    assert once == [reports[1], reports[3]]
    three = replace(batch.view, sessions=np.array([0, 0, 0, 1]))
    found = compute_reward_metrics(
        replace(batch, view=three, reward_reports=reports).session_reports
    )
    assert found["reward/code/verdict/wrong"] == 1.0


def test_a_validation_with_other_weights_than_its_own_is_refused():
    own, mixed = ({"min_global_steps": 4, "max_global_steps": last} for last in (4, 5))
    check_validation(4, [own, own])
    with pytest.raises(StalenessViolation, match=r"validation of v_4: .* with v_4\.\.v_5"):
        check_validation(4, [own, mixed])
