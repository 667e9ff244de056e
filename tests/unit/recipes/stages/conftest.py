"""Fixtures: a run of two stages on the tiny model, as files and as settings."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from verl_pipeline.recipes.deepcoder.stages.stage_loader import load_hardware, load_runs
from verl_pipeline.recipes.deepcoder.stages.stage_overrides import RunSettings
from verl_pipeline.testing import tiny_run

ONE_DEVICE = {"nodes": 1, "devices": 1}
STAGE: dict[str, Any] = {
    "last_step": 4,
    "response_length": 8,
    "batch": 4,
    "mini_batch": 4,
    "samples": 4,
    "pools": {"train": ONE_DEVICE, "rollout": ONE_DEVICE},
}
STAGES: dict[str, Any] = {
    "first": STAGE,
    "second": {**STAGE, "last_step": 8, "batch": 6, "mini_batch": 6, "response_length": 16},
}
HARDWARE: dict[str, Any] = {
    "run": "tiny",
    "device": "cpu",
    "nodes": 1,
    "devices": 4,
    "overrides": [
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
    ],
}


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-stages")
    tiny_run.write_model(folder / "model")
    tiny_run.write_data(folder / "data" / "train.parquet", 22)
    tiny_run.write_data(folder / "data" / "heldout.parquet", 4)
    return folder


@pytest.fixture
def write_run_files(tmp_path, tiny_folder):
    """A function that writes ``stages.yaml`` and ``hardware.yaml`` with changes."""

    def write_files(run=(), stages=None, hardware=()) -> tuple[Path, Path]:
        content = {
            "model": str(tiny_folder / "model"),
            "data": str(tiny_folder / "data"),
            "prompt_length": 64,
            "stages": copy.deepcopy(STAGES) if stages is None else stages,
            **dict(run),
        }
        paths = tmp_path / "stages.yaml", tmp_path / "hardware.yaml"
        paths[0].write_text(yaml.safe_dump({"tiny": content}))
        paths[1].write_text(yaml.safe_dump({**HARDWARE, **dict(hardware)}))
        return paths

    return write_files


@pytest.fixture
def make_settings(write_run_files, tmp_path):
    """A function that makes the settings of a run with changes."""

    def build_settings(run=(), stages=None, hardware=(), overrides=()) -> RunSettings:
        stages_path, hardware_path = write_run_files(run, stages, hardware)
        run_config = load_runs(stages_path)["tiny"]
        return RunSettings(
            run_config,
            load_hardware(str(hardware_path)),
            run_config.model,
            Path(run_config.data),
            tmp_path / "output",
            overrides=list(overrides),
        )

    return build_settings


@pytest.fixture
def change_stages():
    """A function that changes stages, as in ``change_stages(second={"batch": 5})``."""

    def build_stages(**changes):
        return {
            name: {**copy.deepcopy(stage), **changes.get(name, {})}
            for name, stage in STAGES.items()
        }

    return build_stages
