"""The demonstration and its ablation, as in the recipe's README: forty minutes on two cores."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("VERL_PIPELINE_DATA", ROOT.parent / "shared" / "data"))
STAGES = ["short", "long"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3 * 3600),
    pytest.mark.skipif(
        not DATA.is_dir(), reason=f"no data in {DATA}; name a folder with VERL_PIPELINE_DATA"
    ),
]


def test_both_arms_are_prepared_trained_evaluated_and_reported(tmp_path):
    output = tmp_path / "demo"
    arguments = ["--data", str(DATA), "--output", str(output)]
    run = subprocess.run(
        [sys.executable, "-m", "verl_pipeline.recipes.deepcoder.ablation", *arguments],
        cwd=ROOT,
        capture_output=True,
    )
    assert run.returncode == 0, run.stderr.decode()[-6000:]
    report = json.loads((output / "report.json").read_text())
    assert report["base"]["problems"] == 24
    for arm in ("overlong", "unfiltered"):
        rows = report["arms"][arm]
        assert [row["stage"] for row in rows] == STAGES and [row["limit"] for row in rows] == [
            64,
            128,
        ]
        for row in rows:
            trained, held_out = row["training"], row["held_out"]
            assert (
                trained["trajectories"] == 24 * trained["steps"] and held_out["samples"] == 24 * 8
            )
            assert held_out["failed"] == 0
            for share in (trained["truncated"], held_out["pass@1"]):
                assert 0 <= share["low"] <= share["value"] <= share["high"] <= 1
            filtered = trained["trained_on"] < trained["trajectories"]
            assert filtered == (arm == "overlong"), row
    (between,) = report["between"]
    assert (between["arm"], between["over"], between["stage"]) == ("overlong", "unfiltered", "long")
