"""verl's timers and rates mean in our modes what they mean in ``sync``."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict
from verl import DataProto
from verl.trainer.ppo.metric_utils import compute_throughout_metrics, compute_timing_metrics
from verl.utils.debug import marked_timer

from verl_pipeline.trainer.step_metrics import StepClock, add_weight_sync, correct_token_rates

TIMERS = {"step": 20.0, "gen": 0.01, "update_actor": 9.0, "save_checkpoint": 6.0, "testing": 8.0}


def record(clock, around, event, seconds):
    """An event of the schedule that took ``seconds``."""
    with clock.inside(around), marked_timer(event, clock.events):
        pass
    with clock.inside(around):
        clock.events[event] = seconds


def test_a_batch_sampled_ahead_has_no_generation():
    clock = StepClock()
    record(clock, "step", "wait_rollout", 3.0)
    record(clock, "step", "update_weights", 1.0)
    verls, ours = clock.split(TIMERS, is_sampled_ahead=True)
    assert "gen" not in verls and verls["update_weights"] == 1.0
    assert ours == {"pipeline/timing_s/wait_rollout": 3.0, "pipeline/timing_s/collect": 0.01}
    verls, ours = clock.split(TIMERS, is_sampled_ahead=False)
    assert verls["gen"] == 0.01 and "pipeline/timing_s/collect" not in ours


def test_what_comes_before_a_checkpoint_or_a_validation_is_no_part_of_it():
    clock = StepClock()
    record(clock, "save_checkpoint", "wait_rollout", 4.0)
    record(clock, "testing", "wait_rollout", 0.5)
    record(clock, "testing", "update_weights", 2.0)
    verls, ours = clock.split(TIMERS, is_sampled_ahead=True)
    assert (verls["save_checkpoint"], verls["testing"]) == (2.0, 5.5)
    assert "update_weights" not in verls and verls["step"] == 20.0
    assert ours["pipeline/timing_s/save_checkpoint/wait_rollout"] == 4.0
    assert ours["pipeline/timing_s/testing/update_weights"] == 2.0
    clock.restart()
    assert clock.split(TIMERS, is_sampled_ahead=False) == (TIMERS, {})


SECONDS = st.floats(0, 1e4)
EVENTS = st.dictionaries(
    st.tuples(
        st.sampled_from(["step", "save_checkpoint", "testing"]),
        st.sampled_from(["wait_rollout", "update_weights"]),
    ),
    SECONDS,
)


@given(EVENTS, st.dictionaries(st.sampled_from(list(TIMERS)), SECONDS), st.booleans())
def test_no_second_is_lost_or_counted_twice(events, timers, is_sampled_ahead):
    clock = StepClock()
    for (around, event), seconds in events.items():
        record(clock, around, event, seconds)
    verls, ours = clock.split(timers, is_sampled_ahead=is_sampled_ahead)
    # Events of a step have no timer of verl's around them but the step's own.
    added = sum(s for (around, _), s in events.items() if around == "step" or around not in timers)
    total = sum(timers.values()) + added
    assert sum(verls.values()) + sum(ours.values()) == pytest.approx(total, abs=1e-6)
    assert all(name.startswith("pipeline/timing_s/") for name in ours)


def test_two_weight_syncs_of_a_step_are_added():
    metrics = {"actor/loss": 1.0}
    sync = {"pipeline/weight_sync/seconds": 2.0, "pipeline/checkpoint_engine/changed_ratio": 0.5}
    add_weight_sync(metrics, sync)
    add_weight_sync(metrics, sync)
    assert metrics == {
        "actor/loss": 1.0,
        "pipeline/weight_sync/seconds": 4.0,
        "pipeline/checkpoint_engine/changed_ratio": 0.5,
    }


def compute_verls_metrics(prompts, responses, timers, devices):
    """verl's own rates of a batch of rows with these lengths."""
    lengths = {
        "prompt_length": torch.tensor(prompts).float(),
        "response_length": torch.tensor(responses).float(),
    }
    tokens = (np.array(prompts) + np.array(responses)).tolist()
    data = DataProto(
        batch=TensorDict(lengths, batch_size=len(prompts)), meta_info={"global_token_num": tokens}
    )
    return compute_timing_metrics(data, timers) | compute_throughout_metrics(data, timers, devices)


ROWS = st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), min_size=1, max_size=8)


@given(ROWS, ROWS, st.integers(0, 3))
def test_dropped_rows_and_padding_change_no_rate(kept, dropped, padding):
    """What ``sync`` logs if the kept rows are all there is, and if all rows are there."""
    timers = {"step": 10.0, "gen": 4.0, "update_actor": 3.0}
    padded = [*kept, *[(127, 1)] * padding]
    found = compute_verls_metrics(*zip(*padded, strict=True), timers, 2)
    sampled = [*kept, *dropped]
    correct_token_rates(
        found, sampled_tokens=sum(row[1] for row in sampled), padding_tokens=128 * padding
    )
    trained_only = compute_verls_metrics(*zip(*kept, strict=True), timers, 2)
    all_rows = compute_verls_metrics(*zip(*sampled, strict=True), timers, 2)
    for name in ("perf/total_num_tokens", "perf/throughput", "perf/time_per_step"):
        assert math.isclose(found[name], trained_only[name])
    assert math.isclose(found["timing_per_token_ms/gen"], all_rows["timing_per_token_ms/gen"])
