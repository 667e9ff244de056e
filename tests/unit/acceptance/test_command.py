"""A wrong command is refused in one line, with exit code 2, before anything starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from typer.testing import CliRunner

from tests.helpers.patience import scale_deadline
from tests.helpers.repository import ROOT
from tests.helpers.thinned import thin_out_rows
from verl_pipeline.acceptance import command, place
from verl_pipeline.cli import app

ROLLOUT = "actor_rollout_ref.rollout"


@pytest.fixture(autouse=True)
def starts_nothing(monkeypatch):
    def start(*_args):
        raise AssertionError("a run was started")

    monkeypatch.setattr(command, "train", start)


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.glob("verl-doctor-*")) == []


@pytest.mark.parametrize(
    ("words", "message"),
    thin_out_rows(
        [
            (["trainer.n_gpus_per_nodes=2"], "did you mean trainer.n_gpus_per_node?"),
            (["trainer.n_gpus_per_node"], "not an override"),
            (["+verl_pipelines=cpu"], "did you mean +verl_pipeline=cpu?"),
            (["--config-dir", "/nowhere"], "--config-dir /nowhere: no such folder"),
            (["--multirun"], "--multirun: not an option of this command"),
            (["--kep"], "--kep: not an option of this command"),
            (["trainer.v1.trainer_mode=sync"], "doctor --run tests one_off_pipeline"),
            (
                ["trainer.nnodes=2"],
                "trainer.nnodes=2: the test's model must lie in a folder that all",
            ),
            (
                ["trainer.nnodes=2", f"{ROLLOUT}.nnodes=3"],
                f"trainer.nnodes=2 {ROLLOUT}.nnodes=3: the test's model",
            ),
            (["trainer.default_local_dir=/proc/nowhere"], "name a folder that can be written to"),
            (
                [f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes=3000000"],
                f"({ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes=",
            ),
        ],
        keep=5,
    ),
)
def test_what_cannot_work_is_refused_in_one_line(words, message):
    result = CliRunner().invoke(app, ["doctor", "--run", "--cpu", *words])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [["trainer.nnodes=1"], ["--keep"], ["--nope"]])
def test_only_run_takes_settings(words):
    result = CliRunner().invoke(app, ["doctor", *words], env={"COLUMNS": "200"})
    assert result.exit_code == 2 and "only --run takes this" in result.stderr


@pytest.mark.medium
def test_a_full_shared_memory_is_refused_with_what_to_do():
    """In a /dev/shm of its own of 8 MiB."""
    script = f"mount -t tmpfs -o size=8m x /dev/shm && exec {sys.executable} -m verl_pipeline.cli"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
        + [f"{script} doctor --run --cpu"],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=scale_deadline(120),
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: /dev/shm has 8 MiB free, and this run needs 320 MiB")
    assert "--shm-size" in line and done.stdout == ""


def make_config(folder: Path):
    return OmegaConf.create({"trainer": {"default_local_dir": str(folder)}})


def test_a_folder_of_the_users_gets_one_of_its_own_which_is_removed_or_kept(tmp_path):
    given = tmp_path / "shared"
    first, second = (place.make_folder(make_config(given), True) for _ in range(2))
    assert first != second and {first.parent, second.parent} == {given}
    assert place.keep_folder(first) == first and first.is_dir()
    place.remove_folder(first)
    place.remove_folder(second)
    assert list(given.iterdir()) == []
    given.rmdir()


def test_a_temporary_folder_is_kept_under_a_name_that_no_other_test_removes(tmp_path):
    folder = place.make_folder(make_config(tmp_path), False)
    (folder / "output.log").write_text("x")
    kept = place.keep_folder(folder)
    another = place.make_folder(make_config(tmp_path), False)
    assert (kept / "output.log").read_text() == "x" and not folder.exists()
    for path in (kept, another):
        place.remove_folder(path)


@pytest.mark.parametrize(
    ("given", "variable", "found"),
    [
        (None, None, None),
        ("auto", None, "auto"),
        ("10.0.0.1:6379", "10.0.0.2:6379", "10.0.0.1:6379"),
        (None, "10.0.0.2:6379", "10.0.0.2:6379"),
        ("local", "10.0.0.2:6379", None),
    ],
)
def test_a_ray_that_may_have_other_nodes_is_known(monkeypatch, given, variable, found):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    config = OmegaConf.create({"ray_kwargs": {"ray_init": {"address": given}}})
    assert place.find_existing_ray(config) == found
