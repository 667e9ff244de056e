"""Output folders: one owner, one process at a time, nothing changed in another's."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from tests.helpers.small_disk import take_snapshot
from verl_pipeline.evaluation.checkpoint_watcher import WATCHING
from verl_pipeline.evaluation.store import EVALUATION
from verl_pipeline.outputs.errors import OutputError
from verl_pipeline.outputs.folders import FolderKind, claim_output
from verl_pipeline.recipes.deepcoder.prepare import PREPARATION, STAGE_CACHE
from verl_pipeline.recipes.deepcoder.stages.run_state import TRAINING

KIND = FolderKind("the test", landmarks=(".lock", "state.json"), written=("*/rows.jsonl",))
OTHER = FolderKind("another test", landmarks=("other",), written=())
HOLDER = """
import sys, time
from pathlib import Path
from verl_pipeline.outputs.folders import FolderKind, claim_output
with claim_output(Path(sys.argv[1]), FolderKind("the test", (), ())):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_belongs_to_the_command_that_claimed_it(tmp_path):
    folder = tmp_path / "a/b"
    with claim_output(folder, KIND):
        with pytest.raises(OutputError, match=f"another process is writing to {folder}"):
            with claim_output(folder, KIND):
                pass
    (folder / "result").write_text("1")
    with claim_output(folder, KIND):
        pass
    before = take_snapshot(tmp_path)
    with pytest.raises(OutputError, match="belongs to the test, not to another test"):
        with claim_output(folder, OTHER):
            pass
    assert take_snapshot(tmp_path) == before


def test_hidden_files_do_not_make_a_folder_foreign(tmp_path):
    (tmp_path / ".gitkeep").write_text("")
    with claim_output(tmp_path, KIND):
        pass
    (tmp_path / "second").mkdir()
    (tmp_path / "second/.gitkeep").write_text("")
    (tmp_path / "second/x").write_text("")
    with pytest.raises(OutputError, match="second holds x and does not belong to the test"):
        with claim_output(tmp_path / "second", KIND):
            pass


def test_a_killed_process_holds_no_lock(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(OutputError, match="another process is writing"):
        with claim_output(tmp_path, KIND):
            pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with claim_output(tmp_path, KIND):
        pass


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        (EVALUATION, [".lock", "model.json", "humaneval/samples.jsonl"]),
        (WATCHING, [".lock", "checkpoints.json", "metrics.jsonl"]),
        (TRAINING, [".lock", "stages.json", "short/metrics.jsonl"]),
        (PREPARATION, ["work/.lock", "train.parquet", "report.json"]),
        (STAGE_CACHE, [".lock", "ingest-taco-123/done.json", "verdicts.jsonl"]),
    ],
    ids=lambda value: value.command if isinstance(value, FolderKind) else "",
)
def test_what_the_last_release_wrote_is_taken_up(tmp_path, kind, files):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(OutputError, match="does not belong to another test"):
        with claim_output(tmp_path, OTHER):
            pass
    with claim_output(tmp_path, kind):
        pass
    with pytest.raises(OutputError, match=f"belongs to {kind.command}, not to another test"):
        with claim_output(tmp_path, OTHER):
            pass


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("nowhere")])
def test_a_lock_that_is_no_file_is_somebody_elses(tmp_path, make):
    make(tmp_path / ".lock")
    before = take_snapshot(tmp_path)
    with pytest.raises(OutputError, match="belongs to the program that made its .lock"):
        with claim_output(tmp_path, KIND):
            pass
    assert take_snapshot(tmp_path) == before


def test_of_two_commands_that_found_a_folder_empty_one_gets_it(tmp_path):
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(open(tmp_path / ".lock", "w"))
        fcntl.flock(lock, fcntl.LOCK_EX)

        def let_the_first_sign():
            lock.write('{"command": "the test"}')
            stack.close()

        with pytest.raises(OutputError, match="belongs to the test, not to another test"):
            with claim_output(tmp_path, OTHER, wait_s=60, notify=let_the_first_sign):
                pass
    with claim_output(tmp_path, KIND):
        pass


def test_an_input_that_would_be_overwritten_is_named(tmp_path):
    with claim_output(tmp_path, KIND):
        (tmp_path / "a").mkdir()
        (tmp_path / "a/rows.jsonl").write_text("{}\n")
        (tmp_path / "a/other.jsonl").write_text("{}\n")
    (tmp_path / "hard").hardlink_to(tmp_path / "a/rows.jsonl")
    for path in (tmp_path, tmp_path / "a/rows.jsonl", tmp_path / "hard"):
        with pytest.raises(OutputError, match="would overwrite the input model"):
            with claim_output(tmp_path, KIND, {"model": path}):
                pass
    with claim_output(tmp_path, KIND, {"model": tmp_path / "a/other.jsonl"}):
        pass
