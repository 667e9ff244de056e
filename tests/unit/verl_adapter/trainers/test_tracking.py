"""verl's file tracker begins its file anew; what an earlier start has logged is kept."""

import json

import pytest

from verl_pipeline.verl_adapter.trainers.tracking import open_tracking, set_aside_metrics


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
