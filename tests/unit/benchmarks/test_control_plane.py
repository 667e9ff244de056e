"""The control plane's benchmark: its lengths, its statistics, and a short run of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.control_plane import compare_metrics, estimate_growth, identify_case, name_series
from tests.helpers.patience import scale_deadline

ROOT = Path(__file__).parents[3]


def test_growth_is_one_where_the_time_is_linear():
    sizes = (64, 512, 2048)
    rows = [{"checkout": "after", "trajectories": size, "wait": size / 100} for size in sizes]
    rows.append({"checkout": "before", "trajectories": 64, "wait": 9.0})
    growth = estimate_growth(rows)
    assert [row["exponent"] for row in growth] == pytest.approx([1.0, 1.0])


def test_a_metric_that_is_missing_or_differs_is_named():
    ours = {"a": 1.0, "b": 1.0, "c": 2.0, "x/std": 0.001}
    assert compare_metrics(ours, {"a": 1.0001, "b": 1.01, "x/std": 0.002}) == ["b", "c"]


def test_a_mode_is_a_series_of_its_own_and_old_reports_are_drained():
    old, new = {"trajectories": 64}, {"trajectories": 64, "mode": "rolling"}
    assert identify_case(old) == (64, "drained") != identify_case(new)
    series = [name_series({"checkout": "after", "case": case}) for case in (old, new)]
    assert series == ["after", "after, rolling"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_driver_past_the_barrier_is_measured_too(tmp_path):
    output = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.control_plane", "--short", "--repeats", "1"]
    run = subprocess.run(
        [*command, "--wait", "1", "--mode", "rolling", "--largest", "32", "--output", str(output)],
        cwd=ROOT, capture_output=True, text=True, timeout=scale_deadline(120),
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    (result,) = json.loads(output.read_text())["results"]
    (step,) = result["steps"]
    assert result["case"]["mode"] == "rolling" and step["driver_s"] > 0
    assert step["metrics"]["pipeline/staleness"] == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_short_run_measures_every_phase(tmp_path):
    output = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.control_plane", "--short", "--repeats", "1"]
    run = subprocess.run(
        [*command, "--wait", "1", "--before", str(ROOT), "--output", str(output)],
        cwd=ROOT, capture_output=True, text=True, timeout=scale_deadline(120),
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(output.read_text())
    assert [result["checkout"] for result in report["results"]] == ["before", "after"] * 2
    for result in report["results"]:
        (step,) = result["steps"]
        assert step["driver_s"] > 0 and step["tokens"] < step["padded_tokens"]
        # The driver reads and writes a few numbers a trajectory; the ranks do the rest.
        count = result["case"]["trajectories"]
        moved = {**step["read_bytes"], **step["written_bytes"]}
        for name in ("submit", "balance", "old_log_prob", "advantage", "metrics"):
            assert moved.get(name, 0) <= 128 * count, name
        assert len(step["rank_s"]) == 8 and min(step["rank_s"]) > 0
        assert step["metrics"]["filters/before/trajectories"] == result["case"]["trajectories"]
        assert result.get("different_metrics", []) == []
