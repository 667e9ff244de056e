"""Both entry points refuse a wrong setting in one line, before Ray starts or a model is loaded."""

import subprocess

import pytest

from tests.helpers.patience import scale_deadline
from tests.helpers.warm_python import find_python
from verl_pipeline.testing import runs, tiny_run

pytestmark = pytest.mark.timeout(400)


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
    runs.name_temporary_folder(tmp_path).rmdir()


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
