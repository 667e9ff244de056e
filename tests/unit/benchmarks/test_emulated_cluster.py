"""The emulated benchmark refuses what cannot work, and adds up what was emulated."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks import emulated_cluster
from benchmarks.emulated_measure import measure_busy, measure_inside
from benchmarks.emulated_modes import MODES
from benchmarks.emulated_report import make_markdown, make_rows
from tests.helpers.planner_cases import make_content
from verl_pipeline.emulated.journal import Entry

APP = emulated_cluster.typer.Typer()
APP.command()(emulated_cluster.main)
EDGES = st.integers(0, 50)


@pytest.mark.parametrize(
    ("profile", "options", "line"),
    [
        ({}, ["--modes", "sync,fast"], "--modes fast: unknown; name some of sync, "),
        ({}, ["--split", "3:3"], "--split 3:3: impossible with gpus=4"),
        ({}, ["--time-scale", "0"], "--time-scale 0: must be a number above 0"),
        ({}, ["--steps", "3", "--warm-up", "3"], "--warm-up 3: must be below --steps 3"),
        ({"gpus": 5000}, [], "gpus=5000: one process emulates all replicas"),
        ({"gpus": 1, "training__gpus": 1}, [], "gpus=1: no split into two pools"),
        ({"weights__load_s": -1}, [], "weights.load_s=-1: must be a number at least 0"),
    ],
)
def test_wrong_input_is_one_line(profile, options, line, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    path = tmp_path / "profile.yaml"
    path.write_text(json.dumps(make_content(**profile)))
    output = tmp_path / "output"
    command = ["--profile", str(path), "--output", str(output), *options]
    result = CliRunner().invoke(APP, command)
    assert result.exit_code == 2
    assert line in result.output and "Traceback" not in result.output
    assert not output.exists()


@given(st.lists(st.tuples(EDGES, EDGES), max_size=8), st.tuples(EDGES, EDGES))
def test_intervals_are_counted_once_and_inside_the_window_only(pairs, bounds):
    intervals = [(min(pair), max(pair)) for pair in pairs]
    window = min(bounds), max(bounds)
    seconds = np.zeros(50, bool)
    for start, end in intervals:
        seconds[start:end] = True
    assert measure_inside(intervals, window) == seconds[window[0] : window[1]].sum()


def test_a_pools_share_is_the_mean_of_its_replicas():
    entries = [
        Entry("sampling", "replica 0", 0.0, 10.0, 0.0),
        Entry("sampling", "replica 1", 4.0, 6.0, 0.0),
        Entry("update", "rank 0", 2.0, 4.0, 0.0, 1),
        Entry("log_prob", "rank 0", 1.0, 2.0, 0.0, 1),
        Entry("publish", "weights", 0.0, 10.0, 0.0),
    ]
    busy = measure_busy(entries, 2, (0.0, 10.0))
    assert busy == pytest.approx({"rollout": 0.6, "trainer": 0.3, "reward": 0.0})


def make_result(mode, seed, seconds):
    return {
        "profile": "p.yaml",
        "mode": mode,
        "seed": seed,
        "layout": {"rollout_gpus": 3, "trainer_gpus": 1},
        "step_s": [seconds],
        "control_s": [1.0],
        "control_scale": 1.0,
        "busy": {"rollout": 0.5},
        "tokens_per_s": 10.0,
        "mean_age": 1.0,
        "largest_age": 1,
        "mixed_share": 0.0,
        "valid": seconds < 100,
    }


def test_gains_compare_runs_of_a_seed():
    results = [make_result("sync", 0, 50.0), make_result("sync", 1, 300.0)]
    results += [make_result("ours:drained", 0, 25.0), make_result("ours:drained", 2, 1.0)]
    sync, ours = make_rows(results)
    assert ours["gain"] == "2.00" and ours["split"] == "3:1" and ours["valid"] == "yes"
    assert sync["split"] == "all" and sync["valid"] == "NO"
    assert len(make_markdown([sync, ours]).splitlines()) == 4


def test_each_mode_with_a_schedule_has_its_pools():
    for mode in MODES.values():
        if mode.schedule is not None:
            assert mode.is_colocated is mode.is_sync
