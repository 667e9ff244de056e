"""The dispatcher's benchmark: whom an arrival belongs to, its rows, and a short run of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.dispatch import SHORT, make_rows
from tests.helpers.patience import scale_deadline

ROOT = Path(__file__).parents[3]


def test_the_rows_have_each_repeat_and_each_batch():
    measured = {
        "step": [{"step_s": 1.0}, {"step_s": 3.0}, {"step_s": 2.0}],
        "intake": [[{"batch": 1, "intake_s": 4.0}, {"batch": 2, "intake_s": 5.0}]],
    }
    rows = make_rows([{"checkout": "after", "measured": measured}])
    assert {row["figure"]: (row["after"], row["after range"]) for row in rows} == {
        "step: step_s": (2.0, "1 to 3"),
        "intake 1: intake_s": (4.0, "4 to 4"),
        "intake 2: intake_s": (5.0, "5 to 5"),
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_short_run_measures_everything(tmp_path):
    output = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.dispatch", "--short", "--repeats", "1"]
    run = subprocess.run(
        [*command, "--output", str(output)],
        cwd=ROOT, capture_output=True, text=True, timeout=scale_deadline(120),
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    (result,) = json.loads(output.read_text())["results"]
    measured = {name: repeats for name, (repeats,) in result["measured"].items()}
    assert measured["latency"]["slots_refilled_per_s"] > 0
    assert 0 < measured["latency"]["p50_ms"] <= measured["latency"]["p99_ms"]
    assert 0 < measured["latency"]["waiting_at_the_end"] < SHORT["trajectories"]
    assert [row["batch"] for row in measured["intake"]] == list(range(1, SHORT["batches"] + 1))
    assert measured["step"]["dispatcher_cpu_s"] > 0
    assert min(measured["book"].values()) > 0
