"""The pipeline benchmark runs verl's own modes, which nothing else here does, on a model that costs
nothing.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.patience import scale_deadline

MODES = ("verl one_step_off_policy", "verl separate_async, 50 ms poll")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_verls_asynchronous_modes_are_measured(tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks.pipeline",
        "--tiny-model",
        "--repeats",
        "1",
        "--batches",
        "3",
    ]
    chosen = [word for mode in MODES for word in ("--only", mode)]
    run = subprocess.run(
        [*command, *chosen, "--output", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=scale_deadline(870),
    )
    if "too busy to tell" in run.stderr:
        pytest.skip("a benchmark measures nothing on a busy machine")
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    report = json.loads((tmp_path / "pipeline.json").read_text())
    assert [found["mode"] for found in report["results"]["runs"]] == list(MODES)
    for found in report["results"]["runs"]:
        assert [step["workload"] for step in found["steps"]] == ["even", "long_tail"]
        for step in found["steps"]:
            assert step["tokens"] > 0 and len(step["versions"]) == 8
            assert sum(step["phases"].values()) == pytest.approx(step["seconds"])
            assert step["phases"]["update"] > 0 and step["phases"]["weight sync"] > 0
    assert (tmp_path / "pipeline.svg").stat().st_size > 0
