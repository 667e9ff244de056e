"""The commands are settings that verl's own configurations accept, on both devices."""

import dataclasses
import json
import sys

import pytest
from hydra import compose, initialize_config_module

from verl_pipeline.evaluation.eval_settings import BadSetting, EvalConfig, SamplingConfig
from verl_pipeline.recipes.deepcoder.distillation import (
    distillation,
    evaluation_process,
    training_commands,
    training_run,
)
from verl_pipeline.recipes.deepcoder.distillation.distill_config import (
    DistillConfig,
    OnPolicyConfig,
)
from verl_pipeline.recipes.deepcoder.stages.stage_overrides import compose_config
from verl_pipeline.trainer.pipeline_config import load_pipeline_config
from verl_pipeline.verl_adapter.checks.check_list import examine_run
from verl_pipeline.verl_adapter.settings.derived_settings import derive_settings


def make_config(tiny_directory, **fields):
    config = DistillConfig(data=str(tiny_directory), max_prompt_tokens=64, max_tokens=16, **fields)
    config.teacher.model = str(tiny_directory / "model")
    return config


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_verls_sft_trainer_takes_every_setting(tmp_path, tiny_directory, device):
    config = make_config(tiny_directory, device=device, overrides=["trainer.total_epochs=9"])
    rows = tmp_path / "rows.parquet"
    command = training_commands.build_sft_command(config, "student", rows, tmp_path)
    place = command.index("verl.trainer.sft_trainer")
    with initialize_config_module("verl.trainer.config", version_base=None):
        settings = compose("sft_trainer_engine", command[place + 1 :])
    assert settings.data.train_files == str(rows) and settings.data.max_length == 80
    assert settings.trainer.total_epochs == 9, "the user's override wins"
    assert settings.trainer.default_local_dir == str(tmp_path / "checkpoints")
    assert "hf_model" in settings.checkpoint.save_contents
    assert (settings.engine.strategy == "fsdp2") == (device == "cpu")


@pytest.mark.parametrize(("staleness", "task_reward"), [(0, False), (1, True)])
def test_the_pipelined_trainer_takes_every_setting(
    tiny_directory, tmp_path, staleness, task_reward
):
    settings = OnPolicyConfig(staleness=staleness, task_reward=task_reward, coefficient=0.5)
    config = make_config(tiny_directory, on_policy=settings)
    for name in ("train", "heldout"):
        source = tiny_directory / "val.parquet"
        (tiny_directory / f"{name}.parquet").write_bytes(source.read_bytes())
    student = str(tiny_directory / "model")
    command = training_commands.build_on_policy_command(config, student, tmp_path)
    composed = compose_config(command[command.index("verl_pipeline.main") + 1 :])
    derive_settings(composed, load_pipeline_config(composed))
    loss = composed.distillation.distillation_loss
    assert loss.use_task_rewards is task_reward and loss.use_policy_gradient is True
    assert composed.trainer.v1.one_off_pipeline.staleness == staleness
    assert examine_run(composed, skip=["device", "sandbox"]).errors == []


def test_a_loss_that_is_differentiated_is_no_advantage(tiny_directory, tmp_path):
    config = make_config(tiny_directory, on_policy=OnPolicyConfig(loss="k3"))
    command = training_commands.build_on_policy_command(config, "student", tmp_path)
    assert "distillation.distillation_loss.use_policy_gradient=False" in command


def test_the_reached_step_and_its_model(tiny_directory, tmp_path):
    config = make_config(tiny_directory)
    assert training_commands.read_reached_step(tmp_path) == 0
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/latest_checkpointed_iteration.txt").write_text("8")
    assert training_commands.read_reached_step(tmp_path) == 8
    found = training_commands.find_model(config, tmp_path, 8)
    assert found == tmp_path / "checkpoints/global_step_8/huggingface"
    found = training_commands.find_model(
        dataclasses.replace(config, method="on_policy"), tmp_path, 8
    )
    assert found.parts[-3:] == ("global_step_8", "actor", "huggingface")


def test_a_folder_of_another_distillation_is_refused_by_the_setting(tiny_directory, tmp_path):
    config, path = make_config(tiny_directory), tmp_path / "settings.json"
    distillation._claim_settings(path, config, "student")
    distillation._claim_settings(path, dataclasses.replace(config, output="elsewhere"), "student")
    with pytest.raises(BadSetting, match="seed: 0 there, 3 now"):
        distillation._claim_settings(path, dataclasses.replace(config, seed=3), "student")
    with pytest.raises(BadSetting, match="student: student there, other now"):
        distillation._claim_settings(path, config, "other")


def test_tokens_of_repeated_steps_count_once(tmp_path):
    def make_record(step, mean):
        values = {"response_length/mean": mean, "filters/before/trajectories": 10.0}
        return json.dumps({"step": step, "data": values}) + "\n"

    path = tmp_path / "metrics.jsonl"
    path.write_text(make_record(1, 5.0) + make_record(2, 7.0) + make_record(2, 6.0))
    assert distillation.count_generated_tokens(path) == 110


def run_python(folder, text):
    training_run.run_training(
        [sys.executable, "-c", text], folder, {"MARK": "7"}, continues_metrics=True
    )


def test_a_trainings_log_is_continued_and_its_refusal_is_its_own(tmp_path):
    run_python(tmp_path, "import os; print('mark', os.environ['MARK'])")
    with pytest.raises(training_run.TrainingRefused) as refused:
        run_python(tmp_path, "print('error: a=1: wrong'); raise SystemExit(2)")
    assert str(refused.value) == "a=1: wrong"
    with pytest.raises(training_run.TrainingFailed, match=r"boom\nthe training exited with code 3"):
        run_python(tmp_path, "print('boom'); raise SystemExit(3)")
    assert (tmp_path / "train.log").read_text() == "mark 7\nerror: a=1: wrong\nboom\n"


@pytest.mark.parametrize(
    ("failed", "ungraded", "n", "is_complete"),
    [(0, 0, 8, True), (1, 0, 8, False), (0, 1, 8, False), (0, 0, 4, False)],
)
def test_only_a_complete_evaluation_is_not_repeated(failed, ungraded, n, is_complete):
    counts = {"failed": failed, "infrastructure": ungraded}
    results = {"tasks": [{"counts": counts, "sampling": {"n": n}}]}
    config = EvalConfig(sampling=SamplingConfig(n=8))
    assert evaluation_process.is_complete(results, config) is is_complete
