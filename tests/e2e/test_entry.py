"""Both entry points refuse a wrong setting in one line, before Ray starts or a model is loaded; a
start takes the slots that we count, and leaves nothing but its run.
"""

import subprocess

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from tests.helpers.patience import scale_deadline
from tests.helpers.warm_python import find_python
from verl_pipeline.testing import runs, tiny_run
from verl_pipeline.verl_adapter.ray_slots import list_requests, sum_slots

pytestmark = pytest.mark.timeout(400)
DATA = ("train-22.parquet", "val.parquet")


def run_module(module, overrides, directory):
    return subprocess.run(
        [find_python(), "-m", module, *overrides],
        cwd=directory,
        env=runs.make_environment(directory),
        capture_output=True,
        text=True,
        timeout=scale_deadline(300),
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "trainer.v1.one_off_pipeline.staleness=2",
            "trainer.v1.one_off_pipeline.staleness=2: must be 0 or 1",
        ),
        ("trainer.v1.trainer_mode=one_of_pipeline", "did you mean one_off_pipeline?"),
    ],
)
def test_our_entry_ends_with_one_line_and_exit_code_2(tmp_path, override, message):
    runs.name_temporary_folder(tmp_path).mkdir(exist_ok=True)
    done = run_module(
        runs.OURS,
        [*tiny_run.make_overrides(tmp_path), "actor_rollout_ref.rollout.nnodes=1", override],
        tmp_path,
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Started a local Ray instance" not in done.stdout + done.stderr
    assert list(runs.name_temporary_folder(tmp_path).iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"model", *DATA}
    runs.name_temporary_folder(tmp_path).rmdir()


def test_a_run_starts_on_the_slots_that_we_count_and_on_no_fewer(tmp_path):
    overrides = [
        *tiny_run.make_overrides(tmp_path),
        "actor_rollout_ref.rollout.nnodes=1",
        "trainer.total_training_steps=1",
    ]
    with initialize_config_module("verl_pipeline.config", version_base=None):
        config = compose("one_off_pipeline", overrides)
    cpus, devices = sum_slots(list_requests(config))
    slots = "ray_kwargs.ray_init.num_{}={}".format

    few = [*overrides, slots("cpus", cpus - 1), slots("gpus", devices)]
    refused = runs.run_training(tmp_path / "refused", few)
    assert refused.returncode == 2
    (line,) = [line for line in refused.output.splitlines() if line.startswith("error: ")]
    assert f"CPU slots: {cpus} needed, {cpus - 1} there" in line and slots("cpus", cpus) in line
    assert "Traceback" not in refused.output and not (tmp_path / "run").exists()

    run = runs.run_training(
        tmp_path / "started", [*overrides, slots("cpus", cpus), slots("gpus", devices)]
    )
    assert run.returncode == 0, run.output
    assert list(run.metrics) == [1]
    written = OmegaConf.load(tmp_path / "run" / "configuration-1.yaml")
    assert written.ray_kwargs.ray_init.num_cpus == cpus
    # verl's configuration alone has nine hundred lines.
    assert len(run.output.splitlines()) < 400
    for finished, folder in ((refused, "refused"), (run, "started")):
        assert finished.survivors == [] and finished.leftovers == []
        written = {path.name for path in (tmp_path / folder).iterdir()}
        assert written <= {"output.log", "metrics.jsonl", "shared-memory-before.json"}


@pytest.mark.slow
def test_verls_entry_refuses_a_misspelt_key_of_ours_before_a_model_is_loaded(tmp_path):
    overrides = [
        *tiny_run.make_overrides(tmp_path),
        "trainer.v1.trainer_mode=one_off_pipeline",
        "actor_rollout_ref.rollout.nnodes=1",
        "+trainer.v1.one_off_pipeline.stalenes=1",
    ]
    run = runs.run_training(tmp_path / "run", overrides, module=runs.STOCK)
    assert run.returncode != 0
    assert (
        "stalenes: unknown key; did you mean trainer.v1.one_off_pipeline.staleness?" in run.output
    )
    assert "actor_init_model" not in run.output and "vLLMHttpServer" not in run.output
    assert run.survivors == [] and run.leftovers == []
