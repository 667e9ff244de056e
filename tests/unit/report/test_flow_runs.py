"""The report of a run past the barrier: who waits for a place, and who changed weights when."""

import base64
import gzip
import json

import numpy as np
import pytest

from tests.helpers.flow_run import FlowRun, write_flow_run
from verl_pipeline.report.lanes import Lane, list_lanes, pack_trajectories, stack_lanes
from verl_pipeline.report.replica_bars import WAITS, list_waits
from verl_pipeline.report.rollouts import pack_rollouts
from verl_pipeline.report.timeline import draw_timeline
from verl_pipeline.report.trace_events import list_events
from verl_pipeline.report.trajectory_rows import read_trajectory_rows
from verl_pipeline.telemetry.accounting import bill_run
from verl_pipeline.telemetry.records import Pool
from verl_pipeline.telemetry.run_folder import load_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flows")
    made = {
        "rolling": FlowRun(long_s=20.0),
        "in_flight": FlowRun(mode="in_flight", long_s=20.0),
        "killed": FlowRun(mode="in_flight", long_s=20.0, slots=3, killed_at=60.0),
    }
    for name, run in made.items():
        write_flow_run(folder / name, run)
    return {name: load_run(folder / name) for name in made}


def test_what_waits_for_its_place_has_not_started(runs):
    rows = read_trajectory_rows(runs["killed"])
    queued = rows.fates == "queued"
    assert queued.any() and np.isnan(rows.started[queued]).all()
    assert not np.isnan(rows.asked).any()
    assert (rows.fates == "running").sum() == 2 * 3
    begun = ~queued
    assert (rows.started[begun] >= rows.asked[begun]).all()
    assert (rows.started[begun] > rows.asked[begun] + 1).any()


def test_the_bars_of_a_replicas_waits_are_those_of_its_bill(runs):
    for run in runs.values():
        lanes = list_lanes(run, [])
        bars = list_waits(run, lanes, run.headers[0].started)
        (bill,) = [bill for bill in bill_run(run) if bill.pool == Pool.ROLLOUT]
        for kind, name in enumerate(WAITS):
            drawn = bars.busy[bars.group % len(WAITS) == kind].sum() / run.header.replicas
            assert drawn == pytest.approx(bill.seconds[name], abs=1e-5), name


def test_every_change_of_weights_of_a_trajectory_is_marked(runs):
    run = runs["in_flight"]
    rows = read_trajectory_rows(run)
    everything = np.arange(len(rows))
    chart = draw_timeline(run, rows, everything, run.headers[0].started).chart
    (source,) = chart.select({"name": "changes of weights"})
    changes = sum(text.count(" ") for text in run.trajectories["version_spans"].to_pylist() if text)
    assert len(source.data["t"]) == changes > 0
    lanes: list[Lane] = list_lanes(run, [])
    pack_trajectories(rows, everything, lanes, [])
    height = stack_lanes(lanes)
    assert (np.asarray(source.data["bottom"]) <= height).all()
    chart = draw_timeline(runs["rolling"], *_read(runs["rolling"]), 0.0).chart
    assert list(chart.select({"name": "changes of weights"})) == []


def _read(run):
    rows = read_trajectory_rows(run)
    return rows, np.arange(len(rows))


def test_the_viewer_has_spans_and_waits_without_texts(runs):
    run = runs["in_flight"]
    rows = read_trajectory_rows(run)
    shown = {}
    for chunk in pack_rollouts(run, rows, 0.0).chunks:
        columns = json.loads(gzip.decompress(base64.b64decode(chunk.packed)))
        keys = zip(columns["prompt"], columns["session"], strict=True)
        shown |= dict(zip(keys, zip(columns["spans"], columns["waited"], strict=True), strict=True))
    for row in run.trajectories.to_pylist():
        spans, waited = shown[row["prompt"], row["session"]]
        text = None if spans is None else " ".join(f"{v}:{tokens}" for v, tokens in spans)
        assert text == row["version_spans"]
        assert waited == pytest.approx(row["begun"] - row["started"], abs=0.01)


def test_a_trace_tells_when_each_has_its_place(runs):
    run = runs["rolling"]
    rows = read_trajectory_rows(run)
    events = [json.loads(event) for event in list_events(run, rows, run.headers[0].started)]
    places = [event for event in events if event.get("args") == {"is": "has its place"}]
    assert len(places) == (rows.started > rows.asked).sum() > 0
    assert sum(event["ph"] == "b" for event in events) == len(rows)
    loads = [event for event in events if event["name"] == "load_weights"]
    assert loads and all("version" in event["args"] for event in loads)
