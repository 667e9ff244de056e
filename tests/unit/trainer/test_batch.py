"""What graders report becomes metrics."""

import pytest

from verl_pipeline.trainer.batch import compute_reward_metrics


def test_shares_of_verdicts_and_quantiles_of_seconds():
    rows = [
        {
            "grader": "code",
            "verdict": verdict,
            "tier": "rlimits",
            "grading_s": float(n),
            "busy": 2.0,
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
