"""``--check`` and refusals of both entry points, as a user sees them."""

import subprocess
from pathlib import Path

import pytest

from tests.helpers.patience import scale_deadline
from tests.helpers.warm_python import find_python
from verl_pipeline.testing import runs, tiny_run

pytestmark = pytest.mark.timeout(900)
CHECK_ONLY = "hydra/callbacks=check_only"
MODE = "trainer.v1.trainer_mode=one_off_pipeline"
POOL = "actor_rollout_ref.rollout.nnodes=1"


def run_entry(module, *overrides, folder: Path, unset: str = ""):
    """Run an entry point in an empty folder; returns it with what it has left behind."""
    folder.mkdir()
    runs.name_temporary_folder(folder).mkdir(exist_ok=True)
    done = subprocess.run(
        [find_python(), "-m", module, *overrides],
        cwd=folder,
        env={name: value for name, value in runs.make_environment(folder).items() if name != unset},
        capture_output=True,
        text=True,
        timeout=scale_deadline(300),
    )
    temporary = runs.name_temporary_folder(folder)
    left = [path for path in (*folder.rglob("*"), *temporary.rglob("*")) if path != temporary]
    temporary.rmdir()
    return done, left


def list_error_lines(done) -> list[str]:
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(
    ("module", "chosen"), [(runs.OURS, ["--check"]), (runs.STOCK, [CHECK_ONLY, MODE])]
)
def test_a_run_that_works_shows_its_plan_and_starts_nothing(tmp_path, module, chosen):
    overrides = tiny_run.make_overrides(tmp_path / "data")
    done, left = run_entry(
        module, *overrides, POOL, "trainer.n_gpus_per_node=2", *chosen, folder=tmp_path / "run"
    )
    assert done.returncode == 0, done.stderr
    assert list_error_lines(done) == [] and left == []
    for text in (
        "train:  1 x 2 cpu devices",
        "Ray slots that it asks for: 10 CPU + 3 GPU",
        "4 prompts x 4 samples = 16 trajectories a step",
        "checkpoint_engine.backend=gloo  (the pools are separate; device cpu)",
        "256 positions",
        "not checked",
        "no errors; nothing was started",
    ):
        assert text in done.stdout
    assert "Started a local Ray instance" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "chosen"),
    [
        (runs.OURS, ["--check"]),
        pytest.param(runs.OURS, [], marks=pytest.mark.slow),
        pytest.param(runs.STOCK, [CHECK_ONLY, MODE], marks=pytest.mark.slow),
        (runs.STOCK, [MODE]),
    ],
)
def test_all_errors_come_at_once_and_in_one_line_each(tmp_path, module, chosen):
    overrides = tiny_run.make_overrides(tmp_path / "data")
    wrong = [
        "trainer.n_gpus_per_node=two",
        "algorithm.adv_estimator=grop",
        "data.val_files=no.json",
    ]
    done, _ = run_entry(module, *overrides, POOL, *wrong, *chosen, folder=tmp_path / "run")
    assert done.returncode == 2, done.stderr
    lines = list_error_lines(done)
    assert len(lines) == len(wrong)
    for line, override in zip(lines, wrong, strict=True):
        assert line.startswith(f"error: {override}: ")
    assert "Started a local Ray instance" not in done.stdout + done.stderr


@pytest.mark.parametrize("module", [runs.OURS, runs.STOCK])
def test_misspelt_overrides_are_refused_on_both_entries(tmp_path, module):
    wrong = ["traner.nnodes=1", "+verl_pipeline=cpus", "a=[1"]
    done, left = run_entry(module, MODE, *wrong, folder=tmp_path / "run")
    assert done.returncode == 2 and left == []
    lines = list_error_lines(done)
    assert len(lines) == len(wrong)
    assert any("did you mean trainer.nnodes?" in line for line in lines)
    assert any("did you mean cpu?" in line for line in lines)


def test_a_misspelt_mode_is_refused_on_verls_entry(tmp_path):
    mode = "trainer.v1.trainer_mode=one_off_pipelin"
    overrides = tiny_run.make_overrides(tmp_path / "data")
    done, _ = run_entry(runs.STOCK, *overrides, mode, folder=tmp_path / "run")
    assert done.returncode == 2
    assert list_error_lines(done) == [f"error: {mode}: unknown; did you mean one_off_pipeline?"]


def test_a_command_of_verls_own_is_left_to_hydra(tmp_path):
    done, _ = run_entry(runs.STOCK, "traner.nnodes=1", folder=tmp_path / "run")
    assert done.returncode == 1 and "Could not override 'traner.nnodes'" in done.stderr


def test_a_gpu_run_can_be_checked_without_a_gpu(tmp_path):
    overrides = [
        override
        for override in tiny_run.make_overrides(tmp_path / "data")
        if override != "+verl_pipeline=cpu"
    ]
    rollout = ["name=vllm", "tensor_model_parallel_size=1", "n_gpus_per_node=8"]
    pools = [POOL, *(f"actor_rollout_ref.rollout.{setting}" for setting in rollout)]
    pools += ["data.train_batch_size=8", "actor_rollout_ref.actor.ppo_mini_batch_size=8"]
    pools += ["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4"]
    pools += ["actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4"]
    done, left = run_entry(
        runs.OURS, *overrides, *pools, "--check", folder=tmp_path / "run", unset="VERL_PLATFORM"
    )
    assert done.returncode == 0 and left == [], done.stderr
    assert "trainer.device=cuda: this machine has no such device" in done.stdout


def test_help_says_how_to_check(tmp_path):
    done, _ = run_entry(runs.OURS, "--help", folder=tmp_path / "run")
    assert done.returncode == 0 and "--check" in done.stdout


@pytest.mark.parametrize("source", [["-c", "PROGRAM"], ["-"]])
def test_a_program_without_a_file_composes_as_ever(source):
    program = (
        "from hydra import compose, initialize_config_module\n"
        "with initialize_config_module('verl_pipeline.config', version_base=None):\n"
        "    print(compose('grpo_plus/ours').keys())\n"
    )
    done = subprocess.run(
        [find_python(), *(program if word == "PROGRAM" else word for word in source)],
        input=program,
        capture_output=True,
        text=True,
        timeout=scale_deadline(120),
    )
    assert done.returncode == 0 and "actor_rollout_ref" in done.stdout, done.stderr
