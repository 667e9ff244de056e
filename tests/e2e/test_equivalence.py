"""Staleness 0 is verl's sync trainer, update by update."""

import copy
import re

import pytest

from tests.helpers.training_run import list_unknown_metrics
from verl_pipeline.metrics import OWN_METRICS
from verl_pipeline.testing import equivalence

pytestmark = pytest.mark.timeout(1200)


def test_staleness_0_is_sync(equivalent_runs):
    sync_run = equivalent_runs["sync"]
    difference = equivalence.compare_runs(sync_run, equivalent_runs["one_off_pipeline"])
    assert set(difference.relative) == set(equivalence.COMPARED)
    assert len(sync_run.list_batches()) == equivalence.STEPS
    assert difference.is_equal, difference


# No two runs agree on these.
MEASURED = re.compile(r"timing_(s|per_token_ms)/.+|perf/(throughput|time_per_step)|actor/perf/.+")


def test_verls_metrics_are_those_of_sync(equivalent_runs):
    """Each name of verl's is logged by both, with the same value unless it is measured."""
    sync_run, our_run = equivalent_runs["sync"], equivalent_runs["one_off_pipeline"]
    assert list_unknown_metrics(sync_run) == list_unknown_metrics(our_run) == []
    for step, expected in sync_run.metrics.items():
        found = our_run.metrics[step]
        own = {name for name in found if any(metric.matches(name) for metric in OWN_METRICS)}
        assert not own & expected.keys() and found.keys() - own <= expected.keys()
        # Before the first step the pool has the weights already.
        assert expected.keys() - found.keys() == (
            {"timing_s/update_weights"} if step == 1 else set()
        )
        differing = [
            f"{name}: {value} in sync, {found[name]} in ours"
            for name, value in expected.items()
            if name in found and not MEASURED.fullmatch(name)
            if found[name] != pytest.approx(value, rel=1e-4, abs=1e-5)
        ]
        assert differing == []
        for metrics in (expected, found):
            parts = ("gen", "old_log_prob", "adv", "update_actor", "update_weights")
            spent = sum(metrics.get(f"timing_s/{part}", 0.0) for part in parts)
            assert 0 < spent <= metrics["timing_s/step"]


def test_a_swapped_batch_a_changed_token_and_another_loss_are_seen(sync_run):
    swapped = copy.deepcopy(sync_run)
    for record in swapped.trajectories:
        record["step"] = {2: 3, 3: 2}.get(record["step"], record["step"])
    assert len(equivalence.compare_runs(sync_run, swapped).discrete) == 2

    changed = copy.deepcopy(sync_run)
    changed.trajectories[5]["response"][0] += 1
    assert not equivalence.compare_runs(sync_run, changed).is_equal

    drifted = copy.deepcopy(sync_run)
    drifted.metrics[3]["actor/grad_norm"] *= 1 + 10 * equivalence.TOLERANCE
    assert not equivalence.compare_runs(sync_run, drifted).is_equal
