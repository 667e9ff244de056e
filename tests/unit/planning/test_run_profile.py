"""A profile of a run: rates that were planted are found again, and what is not known is said."""

import dataclasses
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.command_fuzz import efforts, fuzz
from tests.helpers.made_up_run import make_header, write_run
from tests.helpers.simulated_run import MadeUpRun
from verl_pipeline.planner.profile_error import ProfileError
from verl_pipeline.planner.schedules import SYNC, Schedule
from verl_pipeline.planning.least_squares import fit_shares
from verl_pipeline.planning.run_profile import find_own_schedule, make_run_estimate
from verl_pipeline.telemetry.records import FOLDER
from verl_pipeline.telemetry.run_starts import RunFolderError

RUN = MadeUpRun(mode="sync", steps=8, prompts=8, group=4, spread=0.6)
# What the driver does in a step, as the profile sums it up.
UPDATE_S, LOG_PROB_S = 8.25, 3.0


def estimate(folder, run):
    write_run(folder, run)
    return make_run_estimate(folder)


def spoil_header(folder, **changes):
    header = dataclasses.asdict(make_header(RUN)) | changes
    path = folder / FOLDER / "run-driver-node0-1-0.jsonl"
    path.write_text(json.dumps(header) + "\n")


runs = st.builds(
    MadeUpRun,
    mode=st.sampled_from(["sync", "one_off_pipeline", "separate_async"]),
    steps=st.integers(6, 8),
    prompts=st.integers(6, 10),
    group=st.integers(4, 8),
    replicas=st.integers(1, 2),
    slots=st.none() | st.just(256),
    token_s=st.floats(0.005, 0.05),
    load_s=st.floats(0.0002, 0.005),
    spread=st.floats(0.4, 0.9),
    reward_s=st.floats(0.0, 20.0),
    sync_s=st.floats(0.0, 10.0),
    save_every=st.integers(0, 2),
    test_every=st.integers(0, 2),
    seed=st.integers(0, 9),
)


@efforts(quick=6, many=150)
def test_planted_rates_come_back_and_the_own_step_too(effort, tmp_path_factory):
    @fuzz(effort)
    @given(runs)
    def check(run):
        found = estimate(tmp_path_factory.mktemp("run"), run)
        profile, note = found.profile, found.reproduction
        sampling = profile.sampling
        # In separate_async a replica never runs few sequences: two batches overlap.
        most = run.prompts * run.group / run.replicas
        for running in (most, 0.5 * most if run.mode == "separate_async" else 2):
            step_s = sampling.decode_base_s + sampling.decode_per_sequence_s * running
            assert step_s == pytest.approx(run.token_s + run.load_s * running, rel=0.03)
        assert profile.training.update_s == pytest.approx(UPDATE_S, rel=0.01)
        assert profile.training.log_prob_s == pytest.approx(LOG_PROB_S, rel=0.01)
        assert profile.weights.publish_s + profile.weights.load_s == pytest.approx(
            # A validation needs the weights of the next step, in the step before.
            run.sync_s,
            rel=0.4 if run.test_every else 0.01,
            abs=1e-3,
        )
        assert profile.reward.seconds.expectation == pytest.approx(run.reward_s, abs=1e-3)
        assert (sampling.prompts, sampling.samples) == (run.prompts, run.group)
        assert sampling.prompt_tokens.expectation == 50
        if run.mode == "separate_async":
            assert note.simulated_s is None
        else:
            # The run has a handful of steps, and the simulation others from the same lengths.
            assert note.simulated_s == pytest.approx(note.measured_s, rel=0.15)

    check()


def test_the_own_step_of_a_long_run_is_simulated_within_a_few_percent(tmp_path):
    for mode in ("sync", "one_off_pipeline"):
        run = dataclasses.replace(RUN, mode=mode, steps=40, reward_workers=4)
        note = estimate(tmp_path / mode, run).reproduction
        assert note.simulated_s == pytest.approx(note.measured_s, rel=0.03)
        assert note.mode == mode and note.steps >= 38


def test_rates_are_found_where_requests_wait_for_slots(tmp_path):
    run = dataclasses.replace(RUN, prompts=16, group=8, slots=8)
    sampling = estimate(tmp_path, run).profile.sampling
    assert sampling.decode_base_s == pytest.approx(run.token_s, rel=0.1)
    assert sampling.decode_per_sequence_s == pytest.approx(run.load_s, rel=0.2)
    assert sampling.slots == 8


def test_pools_and_batch_are_those_of_the_run(tmp_path):
    pools = {"trainer_devices": 4, "rollout_devices": 6, "replicas": 3}
    apart = estimate(tmp_path / "a", dataclasses.replace(RUN, mode="one_off_pipeline", **pools))
    assert apart.profile.gpus == 10 and apart.profile.training.gpus == 4
    assert apart.profile.sampling.tensor_parallel == 2
    shared = estimate(tmp_path / "b", dataclasses.replace(RUN, trainer_devices=4))
    assert shared.profile.gpus == shared.profile.training.gpus == 4
    assert shared.profile.weights.switch_s == pytest.approx(RUN.sync_s)


def test_what_a_run_cannot_tell_is_said(tmp_path):
    even = " ".join(estimate(tmp_path / "even", dataclasses.replace(RUN, spread=0.0)).notes)
    assert "what a further one adds to a decoding step could not be told" in even
    assert "one run cannot tell" in even and "second pool" in even and "are few" in even
    apart = estimate(tmp_path / "apart", dataclasses.replace(RUN, mode="one_off_pipeline"))
    assert "What sync pays to switch" in " ".join(apart.notes)
    many = estimate(tmp_path / "many", dataclasses.replace(RUN, steps=14, slots=None))
    told = " ".join(many.notes)
    assert "are few" not in told and "could not be told" not in told and "no limit is set" in told


def test_a_run_that_was_killed_is_read_as_far_as_it_went(tmp_path):
    sampling = estimate(
        tmp_path, dataclasses.replace(RUN, steps=12, killed_at=250.0)
    ).profile.sampling
    assert sampling.decode_base_s == pytest.approx(RUN.token_s, rel=0.05)
    assert sampling.decode_per_sequence_s == pytest.approx(RUN.load_s, rel=0.1)


def test_responses_without_a_replica_are_taken_to_be_spread_evenly(tmp_path):
    write_run(tmp_path, RUN)
    path = next((tmp_path / FOLDER).glob("trajectories-*"))
    path.write_text(re.sub(r', "replica": "replica \d"', "", path.read_text()))
    sampling = make_run_estimate(tmp_path).profile.sampling
    for running in (4, 16):
        step_s = sampling.decode_base_s + sampling.decode_per_sequence_s * running
        assert step_s == pytest.approx(RUN.token_s + RUN.load_s * running, rel=0.15)


@pytest.mark.parametrize(
    ("mode", "weights", "staleness", "schedule"),
    [
        ("sync", None, None, SYNC),
        ("separate_async", None, None, None),
        # Files of earlier versions do not name the mode, of which there was one.
        ("one_off_pipeline", None, 0, Schedule("drained", 0)),
        ("one_off_pipeline", "drained", 1, Schedule("drained", 1)),
        ("one_off_pipeline", "rolling", 2, Schedule("rolling", 2)),
        ("one_off_pipeline", "in_flight", 8, Schedule("in_flight", 8)),
        ("one_off_pipeline", "drained", 2, None),
        ("one_off_pipeline", "one_step_off", 2, None),
        ("one_off_pipeline", "in_flight", 9, None),
        ("one_off_pipeline", "in_flight", None, None),
    ],
)
def test_the_start_of_a_run_names_its_schedule(mode, weights, staleness, schedule):
    header = make_header(RUN, mode=mode, weight_sync_mode=weights, staleness=staleness)
    assert find_own_schedule(header) == schedule


def test_a_run_in_flight_is_compared_with_its_own_schedule(tmp_path):
    run = dataclasses.replace(RUN, mode="one_off_pipeline")
    write_run(tmp_path, run)
    found = {}
    for weights in ("drained", "in_flight"):
        header = dataclasses.asdict(make_header(run, weight_sync_mode=weights))
        path = tmp_path / FOLDER / "run-driver-node0-1-0.jsonl"
        path.write_text(json.dumps(header) + "\n")
        found[weights] = make_run_estimate(tmp_path).reproduction.simulated_s
    assert found["in_flight"] < found["drained"]


def test_too_few_steps_name_the_fix(tmp_path):
    write_run(tmp_path, dataclasses.replace(RUN, steps=2))
    with pytest.raises(ProfileError, match=r"complete steps are no mean; give a run of at least 5"):
        make_run_estimate(tmp_path)


def test_a_run_without_trajectories_names_the_fix(tmp_path):
    write_run(tmp_path, RUN)
    next((tmp_path / FOLDER).glob("trajectories-*")).unlink()
    with pytest.raises(ProfileError, match="has a length; give a run whose telemetry was on"):
        make_run_estimate(tmp_path)


@pytest.mark.parametrize("field", ["batch_size", "group_size", "replicas", "trainer_devices"])
@pytest.mark.parametrize("value", [0, -3, 1 << 40])
def test_a_start_that_no_run_has_is_named(tmp_path, field, value):
    write_run(tmp_path, RUN)
    spoil_header(tmp_path, **{field: value})
    with pytest.raises(ProfileError, match=f"{field}={value}"):
        make_run_estimate(tmp_path)


def test_other_folders_and_versions_are_refused(tmp_path):
    with pytest.raises(RunFolderError, match="is no run"):
        make_run_estimate(tmp_path)
    write_run(tmp_path, RUN)
    spoil_header(tmp_path, format=99)
    with pytest.raises(RunFolderError, match="records of format 99"):
        make_run_estimate(tmp_path)


@given(st.lists(st.tuples(*[st.floats(0, 100)] * 4), min_size=1, max_size=30))
def test_shares_are_never_negative(rows):
    *columns, seconds = np.array(rows).T
    found = fit_shares(columns, seconds)
    assert (found >= 0).all() and np.isfinite(found).all()
