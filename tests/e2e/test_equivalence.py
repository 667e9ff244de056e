"""Staleness 0 is verl's sync trainer, update by update."""

import copy

import pytest

from verl_pipeline.testing import equivalence

pytestmark = pytest.mark.timeout(1200)


def test_staleness_0_is_sync(equivalent_runs):
    sync_run = equivalent_runs["sync"]
    difference = equivalence.compare_runs(sync_run, equivalent_runs["one_off_pipeline"])
    assert set(difference.relative) == set(equivalence.COMPARED)
    assert len(sync_run.list_batches()) == equivalence.STEPS
    assert difference.is_equal, difference


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
