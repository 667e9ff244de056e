"""Small emulated clusters for tests."""

import json
from pathlib import Path

from tests.helpers.planner_cases import make_content
from verl_pipeline.emulated.cluster import EmulatedCluster


def make_run(folder: Path, *, time_scale: float = 1.0, profile=None, **fields) -> EmulatedCluster:
    """The run of a small profile, which is written below ``folder``.

    Args:
        profile: changes to it, as :func:`make_content` takes them.
        fields: of the run.
    """
    path = folder / "profile.yaml"
    path.write_text(json.dumps(make_content(**(profile or {}))))
    values = {
        "rollout_gpus": 2,
        "trainer_gpus": 2,
        "slots": 4,
        "batches": 3,
        "seed": 0,
        "control_scale": 1.0,
        "token_factor": 8,
        "streams_rewards": True,
        "folder": str(folder),
    }
    return EmulatedCluster(profile=str(path), time_scale=time_scale, **values | fields)
