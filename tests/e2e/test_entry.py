"""Both entry points refuse a wrong setting in one line, before Ray starts or a model is loaded; a
start takes the slots that we count, and leaves nothing but its run.
"""

import subprocess

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from rich.console import Console

from tests.helpers.patience import scale_deadline
from tests.helpers.warm_python import find_python
from verl_pipeline.acceptance.checks import CHECKS
from verl_pipeline.acceptance.command import run_acceptance
from verl_pipeline.acceptance.report import EXIT_PASSED
from verl_pipeline.testing import runs, tiny_run
from verl_pipeline.verl_adapter.placement.ray_slots import list_requests, sum_slots

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

    # The started run is that of `verl-pipeline doctor --run`, as a user begins on a new machine.
    runs.warm_up_runs()
    console = Console(record=True, width=200)
    own = [slots("cpus", cpus), slots("gpus", devices), f"trainer.default_local_dir={tmp_path}/own"]
    assert run_acceptance(own, console, cpu=True, keep=True) == EXIT_PASSED, console.export_text()
    (folder,) = (tmp_path / "own").iterdir()
    assert list(runs.read_metrics(folder)) == [1, 2, 3]
    written = OmegaConf.load(folder / "run" / "configuration-1.yaml")
    assert written.ray_kwargs.ray_init.num_cpus == cpus
    # verl's configuration alone has nine hundred lines.
    assert len((folder / "output.log").read_text().splitlines()) < 400
    shown = console.export_text()
    assert all(
        f" {check.__name__.removeprefix('check_').replace('_', ' ')} " in shown for check in CHECKS
    )
    assert "tensors are in every replica as the trainer sent them" in shown and "MB/s" in shown
    assert f"all {len(CHECKS)} checks passed" in shown and f"log: {folder}/output.log" in shown

    assert refused.survivors == [] and refused.leftovers == []
    for records in (tmp_path / "refused", folder):
        written = {path.name for path in records.iterdir()} - {"model", "train.parquet", "run"}
        assert written <= {
            *("output.log", "metrics.jsonl", "trajectories", "shared-memory-before.json"),
            "ray-logs",
        }


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
