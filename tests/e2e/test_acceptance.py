"""``verl-pipeline doctor --run`` with planted faults of the weight sync, with settings that only a
run itself can refuse, and interrupted. ``test_entry.py`` has the run that passes.
"""

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from tests.helpers.patience import scale_deadline, wait_until
from tests.helpers.planted_engines import CORRUPT
from tests.helpers.warm_python import find_python
from verl_pipeline.acceptance.command import run_acceptance
from verl_pipeline.acceptance.report import EXIT_FAILED, EXIT_PASSED
from verl_pipeline.testing import runs

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]
ROLLOUT = "actor_rollout_ref.rollout"
ENGINE = f"{ROLLOUT}.checkpoint_engine"
TWO_REPLICAS = [f"{ROLLOUT}.nnodes=1", f"{ROLLOUT}.n_gpus_per_node=2"]


def run_doctor(folder: Path, *words: str) -> tuple[int, str]:
    """Exit code and what is shown; the run writes below ``folder``."""
    runs.warm_up_runs()
    console = Console(record=True, width=400)
    words = (*words, f"trainer.default_local_dir={folder}")
    return run_acceptance(words, console, cpu=True, keep=False), console.export_text()


def find_row(shown: str, name: str) -> str:
    (row,) = [line for line in shown.splitlines() if line.startswith(f"│ {name} ")]
    return row


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("planted_corrupt", [CORRUPT, "replica 0", "v_0"]),
        ("planted_stale", ["replica 1", "v_1"]),
        ("planted_base", ["replica", "log-probs that differ", "v_1"]),
    ],
)
def test_a_planted_fault_of_the_weights_fails_by_name(tmp_path, backend, words):
    code, shown = run_doctor(
        tmp_path / "own",
        *TWO_REPLICAS,
        f"{ENGINE}.backend={backend}",
        f"{ENGINE}.custom_backend_module=tests.helpers.planted_engines",
    )
    assert code == EXIT_FAILED, shown
    row = find_row(shown, "weights")
    assert "FAIL" in row and all(word in row for word in words), row
    assert "FAIL" in find_row(shown, "run")
    assert "pass" in find_row(shown, "processes") and "pass" in find_row(shown, "files")
    # What is needed to find out more is kept, and named.
    (folder,) = (tmp_path / "own").iterdir()
    assert f"log: {folder}/output.log" in shown and (folder / "output.log").is_file()
    assert f"{folder}/ray-logs" in shown and list((folder / "ray-logs").glob("worker-*.err"))


def test_two_ranks_and_two_replicas_with_a_critic_pass(tmp_path):
    code, shown = run_doctor(
        tmp_path / "own",
        "trainer.n_gpus_per_node=2",
        *TWO_REPLICAS,
        "algorithm.adv_estimator=gae",
        "actor_rollout_ref.actor.use_kl_loss=True",
    )
    assert code == EXIT_PASSED, shown
    assert list((tmp_path / "own").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [*TWO_REPLICAS, f"{ROLLOUT}.tensor_model_parallel_size=3"],
            "=3: does not divide the rollout pool of 2",
        ),
        ([f"{ENGINE}.backend=nixl"], "No module named 'cupy'"),
        (["ray_kwargs.ray_init.num_cpus=2"], "Ray's cluster is too small for this run"),
    ],
)
def test_what_the_run_refuses_is_shown_in_one_line(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        run_doctor(tmp_path / "own", *words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert list((tmp_path / "own").iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_run_and_leaves_nothing(tmp_path, how):
    command = [find_python(), "-m", "verl_pipeline.cli", "doctor", "--run", "--cpu"]
    process = subprocess.Popen(
        command,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

    def find_engines() -> list[psutil.Process]:
        assert process.poll() is None
        folders = list(tmp_path.glob("verl-doctor-run-*"))
        below = [
            child for child in psutil.process_iter() if folders and _has_folder(child, folders[0])
        ]
        return below if any("VLLM" in child.name() for child in below) else []

    below = wait_until(find_engines, 200, "the rollout engine")
    (folder,) = tmp_path.glob("verl-doctor-run-*")
    process.send_signal(how)
    _output, errors = process.communicate(timeout=scale_deadline(90))
    assert process.returncode == 130
    assert "interrupted: the run has ended, nothing of it is left" in errors
    assert [child for child in below if child.is_running()] == []
    assert list(tmp_path.glob("verl-doctor-*")) == []
    assert not runs.name_temporary_folder(folder).exists()


def _has_folder(process: psutil.Process, folder: Path) -> bool:
    """Whether the process belongs to the run that records in ``folder``."""
    try:
        return process.environ().get(runs.TRAJECTORIES, "").startswith(str(folder))
    except psutil.Error:
        return False
