"""The emulated benchmark refuses what cannot work, and adds up what was emulated."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks import emulated_cluster
from benchmarks.emulated_measure import MeasuredRun, measure_busy, measure_inside
from benchmarks.emulated_modes import MODES
from benchmarks.emulated_options import choose_layout
from benchmarks.emulated_plot import PLANNER, write_plot
from benchmarks.emulated_report import make_markdown, make_rows
from benchmarks.emulated_runs import TRACE, Case, make_cluster, predict
from benchmarks.emulated_trace import read_lengths
from tests.helpers.made_up_run import write_run
from tests.helpers.planner_cases import make_content, make_small
from tests.helpers.simulated_run import MadeUpRun, Simulation
from verl_pipeline.emulated.journal import Entry
from verl_pipeline.emulated.trace import write_trace
from verl_pipeline.errors import UserError
from verl_pipeline.planner.plan import Planner
from verl_pipeline.planner.schedules import Schedule
from verl_pipeline.planner.splits import Split, list_splits, read_split
from verl_pipeline.telemetry.records import FOLDER

APP = emulated_cluster.typer.Typer()
APP.command()(emulated_cluster.main)
EDGES = st.integers(0, 50)


@pytest.mark.parametrize(
    ("profile", "options", "line"),
    [
        ({}, ["--modes", "sync,fast"], "--modes fast: unknown; name some of sync, "),
        ({}, ["--split", "3:3"], "--split 3:3: impossible with gpus=4"),
        ({}, ["--time-scale", "0"], "--time-scale 0: must be a number above 0"),
        ({}, ["--steps", "3", "--warm-up", "3"], "--warm-up 3: must be below --steps 3; give more"),
        (
            {},
            ["--steps", "5", "--modes", "ours:rolling:4"],
            "--warm-up 1: must be below --steps 5; ours:rolling:4 leaves out the last 4, too",
        ),
        ({}, ["--split", "each", "--slots", "-1"], "Invalid value for '--slots'"),
        ({"gpus": 5000}, [], "gpus=5000: one process emulates all replicas"),
        ({"gpus": 1, "training__gpus": 1}, [], "gpus=1: no split into two pools"),
        ({"weights__load_s": -1}, [], "weights.load_s=-1: must be a number at least 0"),
        ({}, ["--slow-replica", "1"], "--slow-replica 1: must be a replica's number and how many"),
        ({}, ["--slow-replica", "a:2"], "--slow-replica a:2: must be"),
        ({}, ["--slow-replica", "1:0.5"], "--slow-replica 1:0.5: must be"),
        ({}, ["--slow-replica", "1:nan"], "--slow-replica 1:nan: must be"),
        (
            {},
            ["--slow-replica", "1:2", "--slow-replica", "1:3"],
            "--slow-replica 1:3: replica 1 is named twice",
        ),
        ({}, ["--split", "2:2", "--slow-replica", "3:2"], "has replicas 0 to 1 on this profile"),
        ({}, ["--lengths", "nothing"], "--lengths nothing: no such file"),
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


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("l.json", b"[1, 2", "not valid JSON"),
        ("l.json", b'{"responses": [1]}', "no list of numbers; give a recorded run"),
        ("l.json", b"[1, true]", "no list of numbers"),
        ("l.json", b"[1, 2]", "2 lengths; give at least the 6 of a batch"),
        ("l.json", b"[9, 9, 9, 9, 9, 0]", "0 is no length"),
        ("l.json", b"[9, 9, 9, 9, 9, NaN]", "nan is no length"),
        ("l.json", b"PAR1", "is a parquet file"),
        ("l.parquet", b"PAR1PAR1", "l.parquet: "),
        ("l.parquet", pa.table({"tokens": [1]}), "give a recorded run"),
        ("l.parquet", pa.table({"response_tokens": ["a"]}), "give a recorded run"),
    ],
)
def test_no_lengths_are_one_line(name, content, line, tmp_path):
    path = tmp_path / name
    pq.write_table(content, path) if isinstance(content, pa.Table) else path.write_bytes(content)
    with pytest.raises(UserError, match=line) as caught:
        read_lengths(path, 6)
    assert str(caught.value).startswith(f"--lengths {path}")
    assert len(str(caught.value).splitlines()) == 1


def test_lengths_that_the_cluster_cannot_hold_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    profile, lengths = tmp_path / "profile.yaml", tmp_path / "lengths.json"
    profile.write_text(json.dumps(make_content(sampling__kv_tokens=2000)))
    lengths.write_text(json.dumps([3000] * 6))
    options = ["--profile", str(profile), "--lengths", str(lengths)]
    result = CliRunner().invoke(APP, [*options, "--output", str(tmp_path / "output")])
    assert result.exit_code == 2
    assert "does not hold the longest trajectory of 3010 tokens" in result.output


def test_lengths_are_those_of_the_list_the_column_or_the_run(tmp_path):
    lengths = [5, 7, 30, 4, 9, 12]
    (tmp_path / "l.json").write_text(json.dumps(lengths))
    pq.write_table(pa.table({"response_tokens": lengths}), tmp_path / "l.parquet")
    for name in ("l.json", "l.parquet"):
        assert read_lengths(tmp_path / name, 6).tolist() == lengths
    run = MadeUpRun(steps=3, test_every=1)
    write_run(tmp_path / "run", run)
    simulation = Simulation(run)
    simulation.play()
    groups = [group for group in simulation.groups if not group.is_validation]
    expected = np.concatenate([group.lengths for group in groups])
    assert read_lengths(tmp_path / "run", 6).tolist() == expected.tolist()


def test_a_run_without_lengths_is_one_line(tmp_path):
    write_run(tmp_path, MadeUpRun(steps=3))
    next((tmp_path / FOLDER).glob("trajectories-*")).unlink()
    with pytest.raises(UserError, match="no trajectory has a length; give a run whose telemetry"):
        read_lengths(tmp_path, 6)


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
        "layout": {"rollout_gpus": 3, "trainer_gpus": 1, "slots": 8},
        "first_step": 2,
        "step_s": [seconds],
        "control_s": [1.0],
        "control_scale": 1.0,
        "slow_replicas": {},
        "lengths": "",
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
    assert make_rows([results[2] | {"limit_s": 24.0}])[0]["of limit"] == "96 %"
    assert sync["split"] == "all" and sync["valid"] == "NO"
    assert len(make_markdown([sync, ours]).splitlines()) == 4


def test_gains_compare_the_steps_that_both_runs_measured():
    sync = make_result("sync", 0, 50.0) | {"step_s": [90.0, 50.0, 40.0]}
    ours = make_result("ours:rolling:2", 0, 15.0) | {"first_step": 3, "step_s": [20.0, 10.0, 1.0]}
    assert make_rows([sync, ours])[1]["gain"] == "3.00"
    assert make_rows([sync, ours | {"first_step": 5}])[1]["gain"] == "-"


def test_a_seed_counts_once_in_the_step_and_in_the_planners():
    one = make_result("sync", 0, 50.0) | {"step_s": [50.0] * 3, "predicted_step_s": [40.0] * 3}
    other = make_result("sync", 1, 90.0) | {"predicted_step_s": [80.0]}
    (row,) = make_rows([one | {"error": -0.2}, other | {"error": -1 / 9}])
    assert (row["step s"], row["planner s"], row["age"]) == (70.0, 60.0, "1.0 (max 1)")


def test_runs_of_other_clusters_or_work_are_rows_of_their_own():
    slow = {"slow_replicas": {"1": 2.0}, "lengths": "runs/a.json"}
    results = [make_result("sync", 0, 50.0), make_result("ours:drained", 0, 25.0)]
    results += [make_result("sync", 0, 90.0) | slow, make_result("ours:drained", 0, 30.0) | slow]
    rows = make_rows(results)
    assert [row["gain"] for row in rows] == ["1.00", "2.00", "1.00", "3.00"]
    assert (rows[3]["slow replicas"], rows[3]["lengths"]) == ("1:2", "a.json")
    other = {"layout": {"rollout_gpus": 2, "trainer_gpus": 2, "slots": 8}}
    rows = make_rows([*results[:2], make_result("ours:drained", 0, 10.0) | other])
    assert [(row["split"], row["gain"]) for row in rows[1:]] == [("3:1", "2.00"), ("2:2", "5.00")]


def test_the_plot_has_a_bar_for_each_row_and_the_planners_line(tmp_path):
    rows = make_rows(
        [make_result("sync", 0, 50.0), make_result("ours:drained", 0, 25.0) | {"lengths": "a.json"}]
    )
    texts = {}
    for name in ("without", "with"):
        write_plot(rows, tmp_path / f"{name}.svg")
        texts[name] = (tmp_path / f"{name}.svg").read_text()
        rows[0]["planner s"] = 40.0
    for text in ("sync, all", "ours:drained, 3:1", "50 s, 1.00", "p, a.json", "the planner"):
        assert f">{text}<" in texts["with"], text
    # One line more, in the planner's colour.
    assert texts["with"].count(PLANNER[1]) == texts["without"].count(PLANNER[1]) + 1


@pytest.mark.parametrize("slow", [{}, {1: 2.5}])
def test_a_case_is_the_run_that_its_processes_read(tmp_path, slow):
    path = tmp_path / "profile.yaml"
    path.write_text(json.dumps(make_content()))
    case = Case(
        *(str(path), MODES["ours:drained"], Split(1, 2, 1, 2), 4, 0, 3, 1, 2.0, 1.0, 8),
        slow_replicas=slow,
        lengths="a.json",
    )
    write_trace(tmp_path / TRACE, np.arange(1.0, 50.0))
    cluster = make_cluster(case, make_small(), tmp_path)
    assert cluster.slow_replicas == slow and cluster.workload.responses[0, 0] == 1
    measured = MeasuredRun([1.0, 1.0], [0.0, 0.0], 0.0, {})
    assert bool(predict(case, make_small(), cluster, measured)) is not bool(slow)


def test_each_mode_may_have_its_own_split_and_slots():
    profile = make_small(gpus=8, sampling__prompts=8, sampling__slots=1)
    planner = Planner(profile, 1)
    mode = MODES["ours:in_flight:2"]
    assert mode.schedule is not None
    split, slots = choose_layout(profile, planner, mode, "each", 0)
    assert split == planner.find_best_split(mode.schedule, list_splits(profile))
    assert slots > 1
    assert choose_layout(profile, planner, mode, "each", 3)[1] == 3
    drained = planner.find_best_split(Schedule("drained", 1), list_splits(profile))
    for name in ("separate_async", "sync"):
        assert choose_layout(profile, planner, MODES[name], "each", 0) == (drained, 1)
    assert choose_layout(profile, planner, mode, "auto", 0) == (drained, 1)
    assert choose_layout(profile, planner, mode, "2:6", 0) == (read_split(profile, "2:6"), 1)


def test_each_mode_with_a_schedule_has_its_pools():
    for mode in MODES.values():
        if mode.schedule is not None:
            assert mode.is_colocated is mode.is_sync
