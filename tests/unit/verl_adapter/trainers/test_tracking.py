"""verl's file tracker begins its file anew; what an earlier start has logged is kept."""

import json
from types import SimpleNamespace

import pytest
from verl.utils.tracking import Tracking

from verl_pipeline.verl_adapter.trainers.tracking import (
    continue_trackers,
    open_tracking,
    set_aside_metrics,
)


def log_step(step):
    tracking = open_tracking("project", "run.v1", ["file"])
    tracking.log(data={"loss": 0.5 * step}, step=step)
    tracking.finish()


@pytest.mark.parametrize(
    ("variable", "value", "file"),
    [
        ("VERL_FILE_LOGGER_PATH", "m.jsonl", "m{}.jsonl"),
        ("VERL_FILE_LOGGER_PATH", "sub/metrics", "sub/metrics{}"),
        ("VERL_FILE_LOGGER_ROOT", "logs", "logs/project/run.v1{}.jsonl"),
        (None, None, "project/run.v1{}.jsonl"),
    ],
)
def test_a_resumed_run_keeps_the_metrics_of_earlier_starts(
    tmp_path, monkeypatch, variable, value, file
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    if variable:
        monkeypatch.setenv(variable, value)
    for step in (1, 2, 3):
        log_step(step)
    for number, step in ((".1", 1), (".2", 2), ("", 3)):
        path = tmp_path / file.format(number)
        assert json.loads(path.read_text()) == {"step": step, "data": {"loss": 0.5 * step}}


@pytest.mark.parametrize("trackers", ["console", ["console", "tensorboard"]])
def test_only_the_file_tracker_needs_it(tmp_path, monkeypatch, trackers):
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "m.jsonl"))
    (tmp_path / "m.jsonl").write_text("{}\n")
    assert set_aside_metrics("project", "run", trackers) is None
    assert set_aside_metrics("project", "run", "file") == tmp_path / "m.1.jsonl"
    assert set_aside_metrics("project", "run", "file") is None


def start(trackers, trained, steps):
    """A start that goes on from ``trained``, logs ``steps`` and is killed."""
    names = {"project_name": "project", "experiment_name": "run"}
    settings = SimpleNamespace(**names, logger=trackers)
    with continue_trackers(settings, trained):
        tracking = Tracking(*names.values(), trackers, {"trainer": {}})
    for step in steps:
        tracking.log(data={"loss": float(trained)}, step=step)
    return tracking


def read_losses(path):
    records = map(json.loads, path.read_text().splitlines())
    return [(record["step"], record["data"]["loss"]) for record in records]


def test_the_file_of_a_run_is_one_series_over_all_its_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "project" / "run.jsonl"
    start(["file"], 0, [0, 1, 2, 3])
    with path.open("ab") as file:
        file.write(b'{"step": 4, "da')  # the kill came within a line
    start(["file"], 2, [3, 4])
    assert "metrics of 2 steps that are trained again are kept in" in capsys.readouterr().out
    start(["file"], 4, [5])
    assert read_losses(path) == [(0, 0), (1, 0), (2, 0), (3, 2), (4, 2), (5, 4)]
    lost = path.with_suffix(".lost.jsonl").read_bytes().splitlines()
    assert [json.loads(lost[0])["step"], lost[1]] == [3, b'{"step": 4, "da']
    # Another run in the same place: nothing of this one is overwritten.
    start(["file"], 0, [1])
    assert read_losses(path) == [(1, 0)]
    assert len(read_losses(path.with_suffix(".1.jsonl"))) == 6


def test_tensorboard_shows_one_series_over_all_starts(tmp_path, monkeypatch):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.chdir(tmp_path)
    start(["tensorboard"], 0, [1, 2, 3]).logger["tensorboard"].finish()
    start(["tensorboard"], 2, [3, 4]).logger["tensorboard"].finish()
    reader = events.EventAccumulator(str(tmp_path / "tensorboard_log/project/run"))
    reader.Reload()
    assert [(one.step, one.value) for one in reader.Scalars("loss")] == [
        (1, 0),
        (2, 0),
        (3, 2),
        (4, 2),
    ]
