"""Past the barrier: every second of each replica has one name, the limits and the advice hold."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.bills import check_bills
from tests.helpers.command_fuzz import efforts, fuzz
from tests.helpers.flow_run import FlowRun, write_flow_run
from tests.helpers.simulated_run import START
from verl_pipeline.telemetry.accounting import bill_run, measure_efficiency
from verl_pipeline.telemetry.advice import advise
from verl_pipeline.telemetry.live import make_frame
from verl_pipeline.telemetry.records import FOLDER, Moment, Pool, Span, TrajectoryEvent
from verl_pipeline.telemetry.run_folder import load_run
from verl_pipeline.telemetry.span_text import read_spans
from verl_pipeline.telemetry.states import STATES
from verl_pipeline.telemetry.timeline import make_timeline

BASE = FlowRun(steps=12)
TAILED = replace(BASE, long_s=30.0)

runs = st.builds(
    FlowRun,
    mode=st.sampled_from(["rolling", "in_flight"]),
    staleness=st.integers(1, 4),
    steps=st.integers(1, 5),
    prompts=st.integers(1, 4),
    group=st.integers(1, 3),
    replicas=st.integers(1, 3),
    slots=st.integers(1, 6),
    update_s=st.floats(0, 20),
    body_s=st.floats(0.1, 10),
    long_s=st.floats(0, 40),
    load_s=st.floats(0.01, 3),
    publish_s=st.floats(0, 3),
    reward_s=st.floats(0, 10),
    test_every=st.integers(0, 2),
    save_every=st.integers(0, 2),
    killed_at=st.none() | st.floats(0.1, 150),
    seed=st.integers(0, 3),
)
# Whatever else a run might have written, in whatever order.
times = st.floats(START - 50, START + 200)
spans = st.builds(
    lambda pool, lane, name, t, length, detail: Span(
        pool, lane, name, t, t + length, step=1, detail=detail
    ),
    st.sampled_from(list(Pool)),
    st.sampled_from(["driver", "replica 0", "replica 7", "x"]),
    st.sampled_from(["step", "wait_rollout", "save_checkpoint", "update_weights", "load_weights"]),
    times,
    st.floats(0, 100),
    st.fixed_dictionaries({}, optional={"version": st.none() | st.integers(-2, 9) | st.text()}),
)
events = st.builds(
    TrajectoryEvent,
    moment=st.sampled_from(list(Moment)),
    t=times,
    prompt=st.sampled_from(["b1p0", "b2p0", "v1p0"]),
    session=st.none() | st.integers(0, 2),
    batch=st.none() | st.integers(-1, 7),
    is_validation=st.booleans(),
    replica=st.none() | st.sampled_from(["replica 0", "replica 7", "r"]),
    response_tokens=st.none() | st.integers(-3, 1000),
    version_spans=st.none() | st.sampled_from(["1:2 3:4", "1:", "a", "1:2 "]),
)


def add_records(folder, kind, records):
    path = folder / FOLDER / f"{kind}-other-node0-9-0.jsonl"
    path.write_text("".join(json.dumps(vars(record)) + "\n" for record in records))


@efforts(quick=10, many=1000)
def test_the_seconds_of_the_replicas_sum_to_the_window_whatever_a_run_wrote(effort):
    @fuzz(effort)
    @given(run=runs, spans=st.lists(spans, max_size=6), events=st.lists(events, max_size=8))
    def check(run, spans, events):
        with tempfile.TemporaryDirectory() as name:
            write_flow_run(Path(name), run)
            add_records(Path(name), "spans", spans)
            add_records(Path(name), "trajectories", events)
            loaded = load_run(Path(name))
        check_bills(loaded)
        timeline = make_timeline(loaded)
        for replica in timeline.replicas:
            assert replica.edges[0] == timeline.edges[0]
            assert replica.edges[-1] == timeline.edges[-1]
            assert (np.diff(replica.edges) > 0).all() and (replica.tokens >= 0).all()
        efficiency = measure_efficiency(loaded).efficiency
        assert efficiency is None or 0 <= efficiency <= 1
        assert advise(loaded).sentence

    check()


def load(folder, run):
    """The seconds of the steps in which the pipeline is full, and the run."""
    seconds = write_flow_run(folder, run)
    return seconds[1 + run.staleness : -run.staleness], load_run(folder)


def bill(run, pool):
    (found,) = [bill for bill in bill_run(run) if bill.pool == pool]
    return found


def test_a_rolling_replica_runs_empty_before_it_loads_and_one_in_flight_does_not(tmp_path):
    shares = {}
    for mode in ("rolling", "in_flight"):
        _, run = load(tmp_path / mode, replace(TAILED, mode=mode))
        rollout = bill(run, Pool.ROLLOUT)
        assert rollout.causes.get("drain before a load", 0.0) == rollout.seconds["draining"]
        shares[mode] = rollout.seconds["draining"] / (rollout.end - rollout.start)
    assert shares["rolling"] > 0.1 and shares["in_flight"] < 0.01, shares


@pytest.mark.parametrize("mode", ["rolling", "in_flight"])
def test_loads_are_the_replicas_and_publications_the_trainers(tmp_path, mode):
    run_of = replace(BASE, mode=mode, load_s=0.7)
    _, run = load(tmp_path, run_of)
    trainer, rollout = bill(run, Pool.TRAINER), bill(run, Pool.ROLLOUT)
    assert trainer.seconds["weight_sync"] == pytest.approx((run_of.steps + 1) * run_of.publish_s)
    names = run.spans["name"].to_pylist()
    loaded = names.count("load_weights") * run_of.load_s / run_of.replicas
    assert rollout.seconds["weight_sync"] == pytest.approx(loaded, rel=0.05)


def test_what_waits_for_a_place_is_not_in_flight(tmp_path):
    # Two places for what comes at once: the first ones begin at once, the others wait.
    _, run = load(tmp_path, replace(BASE, slots=1))
    timeline = make_timeline(run)
    lives = timeline.lives
    assert (lives.starts - lives.asked).max() > 4e6
    for replica in timeline.replicas:
        own = np.array(run.trajectories["replica"].take(lives.rows).to_pylist()) == replica.lane
        open_at = [((lives.starts[own] <= t) & (lives.ends[own] > t)).sum() for t in replica.edges]
        assert max(open_at) == 1
    rollout = bill(run, Pool.ROLLOUT)
    assert rollout.seconds["generating"] > 0.8 * (rollout.end - rollout.start)


def test_the_tail_names_the_longest_of_the_batch_that_the_trainer_waits_for(tmp_path):
    _, run = load(tmp_path, TAILED)
    tails = measure_efficiency(run).tail_prompts
    waited = [tail for tail in tails if tail.waited_s > 1]
    assert waited and all(tail.prompt.endswith("p0") and tail.session == 0 for tail in waited[:3])
    trainer = bill(run, Pool.TRAINER)
    assert trainer.causes["tail of generation"] > 0.8 * trainer.seconds["wait_rollout"]
    assert sum(tail.waited_s for tail in tails if tail.prompt[-2:] == "p0") == pytest.approx(
        trainer.seconds["wait_rollout"], rel=0.25
    )


# What is bound, and by what; devices are two and two.
BOUNDS = {
    "training": replace(BASE, update_s=20.0),
    "rollout": replace(BASE, slots=1, update_s=2.0),
    "longest": TAILED,
    "reward": replace(BASE, reward_s=30.0),
}


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_bound_is_named_and_the_ideal_step_is_its_limit(tmp_path, bound):
    steps, run = load(tmp_path, BOUNDS[bound])
    found = measure_efficiency(run)
    assert found.bound == advise(run).bound == bound
    assert found.step_s == pytest.approx(sum(steps) / len(steps))
    planted = BOUNDS[bound]
    if bound == "training":
        assert found.ideal_step_s == pytest.approx(planted.update_s + planted.publish_s, rel=0.01)
    elif bound == "longest":
        chain = planted.long_s + planted.reward_s + planted.update_s
        # In flight requests are frozen while their replica loads; rolling has none then.
        assert found.ideal_step_s == pytest.approx(chain / (1 + planted.staleness), rel=0.02)
    assert found.efficiency > 0.7


def test_more_staleness_is_advised_where_the_longest_bound_it_and_helps_as_predicted(tmp_path):
    run_of = replace(TAILED, mode="in_flight", steps=24)
    steps, run = load(tmp_path / "before", run_of)
    advice = advise(run)
    assert "raise staleness from 2 to" in advice.sentence and advice.assumptions
    better = replace(run_of, staleness=int(advice.figures["staleness"]))
    after, _ = load(tmp_path / "after", better)
    predicted = advice.figures["predicted_step_s"]
    assert sum(after) / len(after) == pytest.approx(predicted, rel=0.15)
    assert predicted < 0.7 * sum(steps) / len(steps)


def test_moved_devices_give_about_the_predicted_step(tmp_path):
    run_of = BOUNDS["training"]
    _, run = load(tmp_path / "before", run_of)
    advice = advise(run)
    assert "move devices from rollout to training" in advice.sentence
    trainers, rollout = (int(advice.figures[f"{pool}_devices"]) for pool in ("trainer", "rollout"))
    moved = replace(
        run_of, trainer_devices=trainers, rollout_devices=rollout, replicas=rollout, slots=16
    )
    after, _ = load(tmp_path / "after", moved)
    assert sum(after) / len(after) == pytest.approx(advice.figures["predicted_step_s"], rel=0.15)


def test_rolling_replicas_that_drain_are_told_of_in_flight(tmp_path):
    _, run = load(tmp_path, TAILED)
    assert "weight_sync_mode=in_flight does without" in advise(run).sentence
    _, run = load(tmp_path / "in_flight", replace(TAILED, mode="in_flight"))
    assert "weight_sync_mode" not in advise(run).sentence


def test_a_running_run_shows_who_waits_for_a_place_and_what_replicas_hold(tmp_path):
    _, run = load(tmp_path, replace(TAILED, slots=2, killed_at=60.0))
    shown = [line.plain for line in make_frame(run, 1.0).renderables if hasattr(line, "plain")]
    assert "one_off_pipeline, rolling, staleness 2" in shown[0]
    (waiting,) = [line for line in shown if line.startswith("waiting for a place")]
    count = sum(
        row["started"] is not None and row["begun"] is None for row in run.trajectories.to_pylist()
    )
    assert count > 0 and waiting.startswith(f"waiting for a place: {count}, the first of batch")


def test_a_header_without_a_mode_of_weights_is_of_a_drained_run(tmp_path):
    write_flow_run(tmp_path, BASE)
    path = tmp_path / FOLDER / "run-driver-node0-1-0.jsonl"
    header = json.loads(path.read_text())
    assert load_run(tmp_path).header.flows
    del header["weight_sync_mode"]
    path.write_text(json.dumps(header) + "\n")
    old = load_run(tmp_path)
    assert not old.header.flows and old.header.schedule == "one_off_pipeline, drained, staleness 2"
    assert make_timeline(old).replicas == []
    rollout = bill(old, Pool.ROLLOUT)
    assert rollout.seconds["draining"] == rollout.seconds["dispatch"] == 0
    assert list(rollout.seconds) == list(STATES[Pool.ROLLOUT])


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("3:120 4:55", [[3, 120], [4, 55]]),
        ("0:1", [[0, 1]]),
        (None, None),
        ("3:", None),
        ("", None),
    ],
)
def test_spans_are_read_from_their_text_only(text, spans):
    assert read_spans(text) == spans
