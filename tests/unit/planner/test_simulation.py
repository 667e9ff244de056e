"""The simulation against a slow one, against closed forms, by hand, and its invariants."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.planner_cases import FLOWS, cases, make_small, schedules
from tests.helpers.planner_reference import SlowRun
from verl_pipeline.planner.limits import compute_limit
from verl_pipeline.planner.profile import Validation
from verl_pipeline.planner.schedules import Layout, Schedule, may_begin
from verl_pipeline.planner.simulation import simulate
from verl_pipeline.planner.workload import Workload, draw_workload

QUICK = settings(max_examples=40, deadline=None, derandomize=True)
MANY = settings(max_examples=400, deadline=None)


def run(case, schedule, warm_up=0):
    return simulate(
        case.profile,
        schedule,
        case.layout,
        steps=case.steps,
        warm_up=warm_up,
        workload=case.workload,
    )


def check_against_the_slow_one(case, schedule):
    found = run(case, schedule)
    slow = SlowRun(case.profile, case.workload, schedule, case.layout, case.steps).run()
    assert found.ends == pytest.approx(slow.ends, rel=1e-6, abs=1e-5)
    for (batch, index), (first, last) in slow.versions.items():
        if batch < case.steps:
            assert (found.first_versions[batch, index], found.last_versions[batch, index]) == (
                first,
                last,
            )


def check_invariants(case, schedule):
    found = run(case, schedule, warm_up=1)
    updates = np.arange(1, case.steps + 1)[:, None]
    # Every token's version lies between its trajectory's first and last.
    assert (found.first_versions >= np.maximum(updates - 1 - schedule.staleness, 0)).all()
    assert (found.last_versions <= updates - 1).all()
    assert (found.first_versions <= found.last_versions).all()
    if schedule.kind != "in_flight":
        assert (found.first_versions == found.last_versions).all()
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert all(share >= -1e-9 for share in found.shares.values())
    assert (np.diff(found.ends) > 0).all()


def check_limits(case, schedule):
    """The whole run is no shorter than the trainer's work, the pool's, and any chain of batches."""
    found, profile, workload = run(case, schedule), case.profile, case.workload
    limit = compute_limit(
        profile, Workload(*(a[: case.steps] for a in dataclasses.astuple(workload))), schedule,
        case.layout,
    )  # fmt: skip
    publications = 0 if schedule.kind == "sync" else case.steps - 1
    update = limit.update - profile.weights.publish_s
    least = update * case.steps + publications * profile.weights.publish_s
    assert found.total_s >= least * (1 - 1e-9)
    assert found.total_s >= limit.work * case.steps * (1 - 1e-9)
    assert found.total_s >= limit.reward * case.steps * (1 - 1e-9)
    stride = 1 + schedule.staleness
    for first in range(min(stride, case.steps)):
        chain = 0.0
        for batch in range(first, case.steps, stride):
            part = Workload(*(a[batch : batch + 1] for a in dataclasses.astuple(workload)))
            chain += compute_limit(profile, part, schedule, case.layout).chain * stride
        assert found.total_s >= chain * (1 - 1e-9)


@pytest.mark.parametrize(
    "check", [check_against_the_slow_one, check_invariants, check_limits], ids=lambda c: c.__name__
)
@pytest.mark.parametrize(
    "effort", [QUICK, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])],
    ids=["quick", "many"],
)  # fmt: skip
def test_random_cases(check, effort):
    @effort
    @given(cases(), schedules())
    def check_case(case, schedule):
        check(case, schedule)

    check_case()


@pytest.mark.parametrize("kind", FLOWS)
@pytest.mark.parametrize("staleness", [1, 2, 5])
def test_work_is_conserved(kind, staleness):
    """Busy replicas decode: their time is that of the tokens, whoever sampled them."""
    profile = make_small(sampling__decode_per_sequence_s=0.0, sampling__prompt_tokens=1)
    steps = 12
    # One slot: a token takes decode_base_s, and nothing else runs beside it.
    layout = Layout(2, 2, 1)
    found = simulate(profile, Schedule(kind, staleness), layout, steps=steps, warm_up=0)
    workload = draw_workload(profile, steps + staleness, 0)
    busy = found.shares["sampling"] + found.shares["tail"]
    # Up to the last publication; what was sampled of later batches, too.
    end = found.ends[-1] + profile.weights.publish_s
    sampled_s = busy * 4 * end
    least = workload.responses[:steps].sum() * 0.1
    most = workload.responses.sum() * 0.1
    prefill = workload.prompts.sum() / 1000
    assert least <= sampled_s * (1 + 1e-9) and sampled_s <= (most + prefill) * (1 + 1e-9)


def make_even(**changes):
    """100 tokens each, 0.1 s a token, nothing else takes time but the update and the weights."""
    return make_small(
        sampling__response_tokens=100,
        sampling__prompt_tokens=1,
        sampling__prefill_tokens_per_s=1e12,
        sampling__decode_per_sequence_s=0.0,
        reward__seconds=0.0,
        **changes,
    )


@pytest.mark.parametrize("update_s", [4.0, 10.0, 25.0])
def test_even_lengths_give_the_closed_forms(update_s):
    profile = make_even(training__update_s=update_s)
    sampling, sending, layout = 10.0, 3.0, Layout(2, 2, 8)

    def step(schedule, where=layout):
        return simulate(profile, schedule, where, steps=8, warm_up=2).step_s

    assert step(Schedule("drained", 0)) == pytest.approx(sampling + update_s + sending)
    assert step(Schedule("drained", 1)) == pytest.approx(max(sampling, update_s) + sending)
    assert step(Schedule("one_step_off", 1)) == step(Schedule("drained", 1))
    # Twice the GPUs: half the update; the even batch takes as long.
    halved = profile.training.compute_seconds(1.0, 1.0, 2) / 2
    assert halved == update_s / 2
    assert step(Schedule("sync"), Layout(4, 4, 8)) == pytest.approx(sampling + halved + 4.0)


def test_two_replicas_by_hand():
    """One prompt of four samples, two replicas of one slot, 1 s a token, updates of 5 s.

    Lengths 1, 2, 3, 10 in each batch, dealt in turn: replica 0 has 1 and 3, replica 1 has 2 and 10,
    so a batch takes 12 s. drained s=1: batch 1 at 12; then batch 2 is submitted at 12, complete at
    24, while update 1 ends at 17; update 2 ends at 29, update 3 at 41.

    rolling s=1 hands out as slots come free. Replica 0: 1 (until 1), 3 (4), and of batch 2: 1 (5),
    2 (7), 3 (10), 10 (20); replica 1: 2 (2), 10 (12). Batch 1 is complete at 12, update 1 ends at
    17; batch 3 needs v_1, so replica 1 waits until then. Batch 2 is complete at 20, update 2 ends
    at 25. Of batch 3, replica 1 takes 1 (18) and 2 (20); 10 begins at 20, ends at 30; update 3: 35.
    """
    profile = make_small(
        sampling__prompts=1,
        sampling__samples=4,
        sampling__decode_base_s=1.0,
        sampling__decode_per_sequence_s=0.0,
        sampling__prefill_tokens_per_s=1e12,
        sampling__response_tokens=4,
        sampling__prompt_tokens=1,
        training__update_s=6.25,
        weights={"publish_s": 0.0, "load_s": 0.0, "switch_s": 0.0},
        reward__seconds=0.0,
    )
    lengths = np.tile([1.0, 2.0, 3.0, 10.0], (6, 1))
    prompts = np.full((6, 4), 1e-6)
    workload = Workload(lengths, prompts, np.zeros((6, 4)))
    # 16 tokens a batch where 20 are expected (prompts of 1 token, here next to none).
    assert profile.training.compute_seconds(16.0, profile.sampling.mean_tokens, 2) == 5.0
    layout = Layout(2, 2, 1)

    def ends(schedule):
        return simulate(profile, schedule, layout, steps=3, warm_up=0, workload=workload).ends

    assert ends(Schedule("drained", 1)) == pytest.approx([17.0, 29.0, 41.0], abs=1e-3)
    assert ends(Schedule("rolling", 1)) == pytest.approx([17.0, 25.0, 35.0], abs=1e-3)


def test_in_flight_by_hand():
    """One replica of one slot, one trajectory of 10 tokens a batch, 1 s each; update 4, load 2.

    Batch 1 ends at 10, update 1 at 14; batch 2 runs from 10, frozen from 14 to 16, ends at 22: its
    first token is of v_0, its last of v_1. Update 2 ends at 26; batch 3 from 22 to 34.
    """
    profile = make_even(
        sampling__prompts=1,
        sampling__samples=1,
        sampling__decode_base_s=0.1,
        training__update_s=4.0,
        training__scaling=0.0,
        weights={"publish_s": 0.0, "load_s": 2.0, "switch_s": 0.0},
    )
    found = simulate(profile, Schedule("in_flight", 1), Layout(1, 3, 1), steps=3, warm_up=0)
    assert found.ends == pytest.approx([14.0, 26.0, 38.0], abs=1e-3)
    assert found.first_versions.ravel().tolist() == [0, 0, 1]
    assert found.last_versions.ravel().tolist() == [0, 1, 2]


@given(cases())
@QUICK
def test_a_longer_update_or_reward_never_shortens_a_barrier_schedule(case):
    """Provable there: each step is a maximum and a sum of them."""
    training = dataclasses.replace(
        case.profile.training, update_s=case.profile.training.update_s * 2
    )
    slower = dataclasses.replace(case, profile=dataclasses.replace(case.profile, training=training))
    longer = dataclasses.replace(
        case, workload=dataclasses.replace(case.workload, rewards=case.workload.rewards * 2)
    )
    for schedule in (Schedule("sync"), Schedule("drained", 0), Schedule("drained", 1)):
        before = run(case, schedule).total_s
        assert run(slower, schedule).total_s >= before - 1e-9
        assert run(longer, schedule).total_s >= before - 1e-9


@given(cases(), schedules(), st.floats(0.0, 100.0))
@QUICK
def test_all_gpus_wait_for_a_validation_in_every_schedule(case, schedule, seconds):
    validation = Validation(every_steps=2, seconds=seconds)
    other = dataclasses.replace(
        case, profile=dataclasses.replace(case.profile, validation=validation)
    )
    before, after = run(case, schedule), run(other, schedule)
    assert after.total_s == pytest.approx(before.total_s + case.steps * seconds / 2)
    assert all(share >= -1e-9 for share in after.shares.values())
    assert sum(after.shares.values()) == pytest.approx(1.0)


@given(cases())
@QUICK
def test_more_staleness_never_slows_one_slot_in_flight(case):
    """Provable with one replica of one slot and free loads: trajectories keep their order, and a
    trajectory may begin no later."""
    weights = dataclasses.replace(case.profile.weights, load_s=0.0)
    case = dataclasses.replace(
        case,
        profile=dataclasses.replace(case.profile, weights=weights),
        layout=Layout(1, 3, 1),
    )
    totals = [run(case, Schedule("in_flight", staleness)).total_s for staleness in range(1, 6)]
    assert all(later <= earlier + 1e-9 for earlier, later in zip(totals, totals[1:], strict=False))


@pytest.mark.parametrize("kind", ["sync", "drained", "rolling", "in_flight"])
def test_a_full_cache_preempts_and_loses_nothing(kind):
    """With a cache for little more than the longest, every trajectory ends, and later."""
    schedule = Schedule(kind, 0 if kind == "sync" else 1)
    layout = Layout(4, 4, 8) if kind == "sync" else Layout(2, 2, 8)
    many = {"sampling__prompts": 16, "sampling__kv_tokens": 0}
    free = simulate(make_small(**many), schedule, layout, steps=6, warm_up=0)
    many["sampling__kv_tokens"] = 1100
    tight = simulate(make_small(**many), schedule, layout, steps=6, warm_up=0)
    assert tight.total_s > free.total_s
    assert (tight.last_versions >= 0).all() and (tight.first_versions >= 0).all()
    assert sum(tight.shares.values()) == pytest.approx(1.0)


def test_may_begin_is_the_rule_of_the_schedule():
    allowed = [version for version in range(8) if may_begin(5, version, 2)]
    assert allowed == [2, 3, 4]


def test_the_workload_of_a_seed_is_the_same_for_any_number_of_batches():
    profile = make_small()
    few, many = draw_workload(profile, 3, 7), draw_workload(profile, 9, 7)
    assert (few.responses == many.responses[:3]).all()
    assert (few.responses != draw_workload(profile, 3, 8).responses).any()


def test_the_published_look_is_met():
    """The table of the design that these schedules come from: 512 trajectories, 8 replicas of 64
    slots, 12 ms + 0.3 ms x running, lengths of mean 8K, updates of 150 s, 20 s to switch."""
    profile = make_small(
        gpus=16,
        sampling={
            "prompts": 64,
            "samples": 8,
            "response_tokens": {"kind": "lognormal", "mean": 8192, "sigma": 0.6, "cap": 32768},
            "prompt_tokens": 500,
            "slots": 64,
            "decode_base_s": 0.012,
            "decode_per_sequence_s": 0.0003,
            "prefill_tokens_per_s": 1e6,
        },
        training={"gpus": 8, "update_s": 150.0},
        weights={"publish_s": 0.0, "load_s": 0.0, "switch_s": 20.0},
        reward={"seconds": 0.0, "workers": 64},
    )
    sync = simulate(profile, Schedule("sync"), Layout(16, 16, 64), steps=24, warm_up=8).step_s
    looked = {
        ("drained", 1): 1.03, ("rolling", 1): 1.23, ("rolling", 2): 1.47,
        ("in_flight", 1): 1.29, ("in_flight", 2): 1.70, ("in_flight", 4): 2.26,
    }  # fmt: skip
    for (kind, staleness), gain in looked.items():
        schedule = Schedule(kind, staleness)
        step = simulate(profile, schedule, Layout(8, 8, 64), steps=24, warm_up=8).step_s
        assert sync / step == pytest.approx(gain, rel=0.06), schedule
