"""A process's records carry who it is; with telemetry off, nothing is written."""

import json
import os

import pytest

from verl_pipeline.telemetry import recorder as module
from verl_pipeline.telemetry.recorder import Recorder, RunTarget, find_recorder, open_recorder
from verl_pipeline.telemetry.records import Header, Pool

HEADER = Header(
    format=1, role="", host="", pid=0, started=0.0, run_name="r", mode="sync", staleness=None,
    trainer_devices=1, rollout_devices=1, shares_devices=True, replicas=1, slots=None,
    group_size=1, batch_size=1, first_step=1, last_step=2, settings={"data": {"n": 1}},
)  # fmt: skip


def read(folder, kind):
    (path,) = (folder / "telemetry").glob(f"{kind}-*.jsonl")
    return path.name, [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(autouse=True)
def no_recorders(monkeypatch):
    monkeypatch.setattr(module, "_recorders", {})


def test_a_process_opens_one_recorder_and_says_who_it_is(tmp_path):
    target = RunTarget(str(tmp_path), HEADER)
    recorder = open_recorder(target, "agent_loop")
    assert open_recorder(target, "agent_loop") is recorder is find_recorder()
    recorder.close()
    name, (header,) = read(tmp_path, "run")
    assert name.startswith("run-agent_loop-") and f"-{os.getpid()}-" in name
    assert (header["role"], header["pid"], header["mode"]) == ("agent_loop", os.getpid(), "sync")
    assert "settings" not in header and header["versions"]["python"]


def test_a_span_is_recorded_although_its_block_raises(tmp_path):
    recorder = Recorder(RunTarget(str(tmp_path), HEADER), "driver")
    with pytest.raises(KeyError):
        with recorder.record_span(Pool.TRAINER, "driver", "adv", step=2, rows=3):
            raise KeyError
    recorder.close()
    _, (span,) = read(tmp_path, "spans")
    assert span["start"] <= span["end"]
    assert (span["name"], span["step"], span["detail"]) == ("adv", 2, {"rows": 3})


def test_what_only_records_may_fail(tmp_path, capsys):
    recorder = Recorder(RunTarget(str(tmp_path), HEADER), "driver")
    for _ in range(2):
        with recorder.survive("the texts of a step"):
            raise ValueError("no such field")
    with pytest.raises(KeyboardInterrupt):
        with recorder.survive("the texts of a step"):
            raise KeyboardInterrupt
    recorder.close()
    _, (problem,) = read(tmp_path, "problems")
    assert problem["text"] == (
        "the texts of a step could not be recorded (ValueError: no such field)"
    )
    assert capsys.readouterr().err.count("WARNING") == 1


@pytest.mark.parametrize("target", [None, RunTarget(None, HEADER)])
def test_without_a_folder_nothing_is_written(target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recorder = Recorder(target)
    recorder.add_header(HEADER)
    with recorder.record_span(Pool.TRAINER, "driver", "adv"), recorder.survive("this"):
        pass
    recorder.flush()
    recorder.close()
    assert not recorder.is_on and list(tmp_path.iterdir()) == []
