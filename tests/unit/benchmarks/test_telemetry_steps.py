"""Runs with and without telemetry are compared in pairs, and only if nothing else differs."""

import json

import pytest
import typer

from benchmarks.telemetry_steps import WITH, WITHOUT, compare_runs, read_output


def make_report(mode, *seconds, recording=None, **arguments):
    run = {"mode": mode, "steps": [{"seconds": value} for value in seconds]}
    if recording is not None:
        run["recording"], arguments["time_recording"] = recording, True
    return {
        "arguments": {"batches": 8, **arguments},
        "versions": {"commit": "a"},
        "results": {"workloads": ["long_tail"], "runs": [run]},
    }


def test_medians_are_compared_in_pairs():
    reports = [
        make_report(WITH, 10.0, 12.0, 20.0),
        make_report(WITHOUT, 9.0, 10.0, 30.0),
        make_report(WITHOUT, 20.0),
        make_report(WITH, 24.0),
        make_report(WITH, 40.0, recording={"cpu": {"writing": 0.1}, "wall": {}}),
    ]
    found = compare_runs(reports)
    assert found["ratio"]["ratio"] == pytest.approx(1.2)
    assert [run["median"] for run in found["runs"]] == [12.0, 10.0, 24.0, 20.0]
    assert found["recording"] == {"cpu": {"writing": 0.1}, "wall": {}, "step_s": 40.0}


def test_what_cannot_be_compared_is_one_line(tmp_path):
    one = make_report(WITH, 1.0)
    with pytest.raises(typer.BadParameter, match="1 runs with telemetry and 0 without; give as"):
        compare_runs([one])
    with pytest.raises(typer.BadParameter, match="other arguments; measure all alike"):
        compare_runs([one, make_report(WITHOUT, 1.0, batches=3)])
    with pytest.raises(typer.BadParameter, match="no such file; give an output"):
        read_output(tmp_path)
    (tmp_path / "pipeline.json").write_text(json.dumps(one))
    assert read_output(tmp_path) == one
