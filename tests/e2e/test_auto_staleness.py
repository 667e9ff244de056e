"""``staleness=auto`` on real engines: it moves for a reason, and each batch keeps its own bound."""

import re

import pytest

from tests.helpers.training_run import check_clean, make_staleness_overrides, tail
from verl_pipeline.testing import long_tail, runs
from verl_pipeline.trainer import schedule

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]
PIPELINE = "+trainer.v1.one_off_pipeline"
STEPS, MOST = 18, 3
CHANGE = re.compile(r"step (\d+): staleness (\d) becomes (\d), since (.+)")


def test_it_runs_ahead_as_far_as_the_tail_needs(runs_directory):
    """Replies of up to 160 tokens from an update of milliseconds: the trainer waits."""
    directory = runs_directory / "auto"
    run = runs.run_training(
        directory,
        [
            *make_staleness_overrides(directory, manager=long_tail.MANAGER, replicas=2),
            f"data.max_response_length={long_tail.LONG}",
            "actor_rollout_ref.rollout.max_model_len=240",
            "trainer.total_epochs=100",
            f"trainer.total_training_steps={STEPS}",
            f"{PIPELINE}.weight_sync_mode=rolling",
            f"{PIPELINE}.staleness=auto",
            f"+trainer.v1.one_off_pipeline.auto_staleness.most={MOST}",
        ],
        module=runs.STOCK,
    )
    assert run.returncode == 0, tail(run)
    assert sorted(run.metrics) == list(range(1, STEPS + 1))
    dial = {step: metrics["pipeline/staleness/dial"] for step, metrics in run.metrics.items()}
    assert set(dial.values()) <= set(range(1, MOST + 1))
    said = [match.groups() for match in map(CHANGE.search, run.output.splitlines()) if match]
    changes = [step for step in range(2, STEPS + 1) if dial[step] != dial[step - 1]]
    assert [int(step) for step, *_ in said] == changes
    assert said and said[0][1:3] == ("1", "2") and "the trainer waited for" in said[0][3]
    largest = {step: max([1, *(dial[k] for k in range(1, step))]) for step in dial}
    for record in run.trajectories:
        k, (first, last) = record["step"], record["versions"]
        assert schedule.oldest_allowed_version(k, int(largest[k])) <= first <= last < k
    counts = [sum(record["step"] == k for record in run.trajectories) for k in run.metrics]
    assert set(counts) == {16}
    for step, metrics in run.metrics.items():
        assert 0 < metrics["pipeline/correction/effective_share"] <= 1 + 1e-6
        assert f"pipeline/correction/kl/age_{int(metrics['pipeline/staleness'])}" in metrics, step
    check_clean(run)
