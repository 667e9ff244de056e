"""A run that dies is started again, as often as it makes progress; attempts are small programs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.helpers.patience import wait_until
from verl_pipeline import restarts
from verl_pipeline.processes import has_ended

# Does what its folder's plan says for this attempt: writes checkpoints, then ends.
ATTEMPT = """
import json, os, pathlib, signal, subprocess, sys, time
folder = pathlib.Path(sys.argv[1])
words = folder / "words.jsonl"
with words.open("a") as file:
    file.write(json.dumps(sys.argv[2:]) + "\\n")
steps, end = json.loads((folder / "plan.json").read_text())[len(words.read_text().split()) - 1]
for step in steps:
    place = folder / "checkpoints" / f"global_step_{step}"
    (place / "actor").mkdir(parents=True)
    manifest = {"format": 1, "step": step, "serial": step, "keep": {}, "parts": []}
    (place / "checkpoint.json").write_text(json.dumps(manifest))
if end == "leave":
    from verl_pipeline.temporary_folders import SOCKETS_PREFIX, make_temporary_folder
    (folder / "left").write_text(str(make_temporary_folder(SOCKETS_PREFIX)))
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (folder / "child").write_text(str(child.pid))
    os.kill(os.getpid(), signal.SIGKILL)
if end == "wait":
    def stop(number, frame):
        (folder / "signals").open("a").write(f"{number} ")
        sys.exit(130)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    (folder / "ready").touch()
    time.sleep(600)
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if isinstance(end, str):
    os.write(int(os.environ["VERL_PIPELINE_CAUSE_DESCRIPTOR"]), end.encode())
    end = 1
sys.exit(end)
"""
SUPERVISOR = """
import json, pathlib, sys
from verl_pipeline.restarts import supervise
restarts, folder, command = json.loads(sys.argv[1])
code = supervise(restarts, pathlib.Path(folder) / "checkpoints", command, (0.05, 0.2))
heavy = sorted({"torch", "ray", "verl", "vllm", "transformers"} & sys.modules.keys())
assert not heavy, heavy
sys.exit(code)
"""


def start(folder, limit, plan):
    """A supervisor, as a process of its own, of attempts with a plan."""
    (folder / "plan.json").write_text(json.dumps(plan))
    command = [sys.executable, "-c", ATTEMPT, str(folder)]
    return subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, json.dumps([limit, str(folder), command])],
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder, limit, plan):
    process = start(folder, limit, plan)
    _, errors = process.communicate(timeout=60)
    words = [json.loads(line) for line in (folder / "words.jsonl").read_text().splitlines()]
    return process.returncode, words, errors


def test_a_run_goes_on_until_it_ends_well_as_long_as_it_makes_progress(tmp_path):
    auto = ["trainer.resume_mode=auto"]
    plan = [([], "killed"), ([1], "RayActorError: a rank died"), ([2], "killed"), ([], 0)]
    code, words, errors = run(tmp_path, 1, plan)
    assert code == 0
    # Until the run has a checkpoint, its own resume mode counts.
    assert words == [[], [], auto, auto]
    assert "attempt 1 ended after 0 s: killed by SIGKILL; goes on from the beginning" in errors
    assert "exit code 1 (RayActorError: a rank died); goes on from step 1" in errors
    assert "killed by SIGKILL; goes on from step 2" in errors


def test_a_run_without_progress_is_given_up(tmp_path):
    code, words, errors = run(tmp_path, 2, [([3], 1), *[([], 1)] * 9])
    assert code == 1 and len(words) == 1 + 2
    last = errors.splitlines()[-1]
    assert "no newer checkpoint in 2 restarts, so this was the last" in last
    assert "the same command goes on from step 3" in last
    (tmp_path / "killed").mkdir()
    assert run(tmp_path / "killed", 1, [([], "killed")] * 9)[0] == 128 + signal.SIGKILL


@pytest.mark.parametrize("code", [0, 2, 130])
def test_a_run_that_ended_well_or_was_refused_or_interrupted_is_not_started_again(tmp_path, code):
    assert run(tmp_path, 3, [([1], code)]) == (code, [[]], "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_attempt_once_and_ends_the_supervisor(tmp_path, number):
    process = start(tmp_path, 3, [([], "wait")])
    wait_until((tmp_path / "ready").exists, 30, "the attempt")
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert (tmp_path / "signals").read_text() == f"{int(number)} "


def test_the_attempt_ends_with_a_supervisor_that_is_killed(tmp_path):
    process = start(tmp_path, 3, [([], "wait")])
    wait_until((tmp_path / "ready").exists, 30, "the attempt")
    (attempt,) = psutil.Process(process.pid).children()
    process.kill()
    process.communicate(timeout=30)
    wait_until(lambda: has_ended(attempt), 30, "the attempt's end")
    assert (tmp_path / "signals").read_text() == f"{int(signal.SIGTERM)} "


@pytest.mark.slow
def test_what_a_killed_attempt_leaves_is_ended_before_the_next_one(tmp_path):
    code, words, _ = run(tmp_path, 1, [([1], "leave"), ([], 0)])
    assert (code, len(words)) == (0, 2)
    child = int((tmp_path / "child").read_text())
    assert not psutil.pid_exists(child) or has_ended(psutil.Process(child))
    assert not Path((tmp_path / "left").read_text()).exists()


def test_the_cause_of_an_end_is_one_line(monkeypatch):
    reader, writer = os.pipe()
    monkeypatch.setenv(restarts.CAUSE_VARIABLE, str(writer))
    restarts.report_cause(RuntimeError("Traceback:\n  in a file\nValueError: \x1b[31mred\n\n"))
    assert os.read(reader, 999) == rb"RuntimeError: ValueError: \x1b[31mred"
    os.close(reader)
    os.close(writer)
    monkeypatch.delenv(restarts.CAUSE_VARIABLE)
    restarts.report_cause(RuntimeError("nobody asks"))
