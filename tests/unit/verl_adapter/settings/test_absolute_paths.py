"""Relative paths become absolute where the command was started, and nothing else changes."""

import pytest

from verl_pipeline.verl_adapter.entry.start_settings import derive_start_settings
from verl_pipeline.verl_adapter.settings.absolute_paths import derive_absolute_paths


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def derive(config):
    return {setting.field: setting.value for setting in derive_absolute_paths(config)}


def test_outputs_and_what_is_there(composed, folder):
    (folder / "mine").mkdir()
    (folder / "train.parquet").write_text("")
    config = composed(
        "trainer.default_local_dir=checkpoints/${trainer.project_name}",
        "trainer.project_name=p",
        "trainer.rollout_data_dir=dumps",
        "trainer.resume_from_path=mine",
        "actor_rollout_ref.model.path=mine",
        "data.train_files=[train.parquet,hdfs://x/y.parquet,/data/z.parquet]",
    )
    assert derive(config) == {
        "trainer.default_local_dir": f"{folder}/checkpoints/p",
        "trainer.rollout_data_dir": f"{folder}/dumps",
        "trainer.resume_from_path": f"{folder}/mine",
        "actor_rollout_ref.model.path": f"{folder}/mine",
        "data.train_files": [
            f"{folder}/train.parquet",
            "hdfs://x/y.parquet",
            "/data/z.parquet",
        ],
    }


def test_names_of_the_hub_and_absolute_paths_stay(composed, folder):
    config = composed(
        "trainer.default_local_dir=/data/../run",
        "trainer.resume_from_path='~/run/global_step_1'",
        "actor_rollout_ref.model.path=Qwen/Qwen2.5-7B",
        "reward.custom_reward_function.path=pkg://mine",
    )
    assert derive(config) == {}


def test_verls_default_is_relative_and_its_processes_get_an_absolute_one(composed, folder):
    config = composed("trainer.default_local_dir=checkpoints/a")
    settings = [str(setting) for setting in derive_start_settings(config)]
    assert config.trainer.default_local_dir == f"{folder}/checkpoints/a"
    assert (
        f"trainer.default_local_dir={folder}/checkpoints/a  (relative paths begin where the "
        "command was started)"
    ) in settings
    assert derive(config) == {}
