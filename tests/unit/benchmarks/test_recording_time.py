"""What is timed is timed once, and behaves as before."""

import time

import pytest

from benchmarks import recording_time, spans
from benchmarks.recording_time import PARTS, PartTimes, sum_recording


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv(spans.SPANS_VARIABLE, str(tmp_path / "spans.jsonl"))
    monkeypatch.setattr(recording_time, "WRITE_EVERY_S", 0.0)
    return tmp_path / "spans.jsonl"


def test_a_call_inside_another_belongs_to_the_outer_one(path):
    times = PartTimes()
    inner = times.time_function("writing", lambda: "as before")
    outer = times.time_function("texts", lambda: (time.sleep(0.05), inner())[1])
    assert outer() == "as before"
    (span,) = spans.read_spans(path)
    assert span["name"] == recording_time.NAME
    assert span["cpu"].keys() == span["wall"].keys() == {"texts"}
    assert span["cpu"]["texts"] < 0.05 <= span["wall"]["texts"]
    assert inner() == "as before"
    assert spans.read_spans(path)[1]["cpu"].keys() == {"writing"}


def test_a_call_that_raises_is_timed_too(path):
    def fail():
        raise ValueError("as before")

    times = PartTimes()
    for _ in range(2):
        with pytest.raises(ValueError, match="as before"):
            times.time_function("texts", fail)()
    assert len(spans.read_spans(path)) == 2


def test_sums_are_of_the_steps_after_the_first():
    def record(start, seconds):
        times = {"texts": seconds, "writing": seconds}
        return {"name": "recording", "start": start, "cpu": times, "wall": times}

    ends = [{"name": "step ends", "start": t, "seconds": 0.0} for t in (10.0, 20.0, 30.0)]
    found = sum_recording([*ends, record(5.0, 9.0), record(12.0, 1.0), record(25.0, 3.0)])
    assert found["cpu"]["texts"] == found["cpu"]["writing"] == 2.0
    assert found["cpu"].keys() == PARTS.keys()
    # Nobody waits for the writing thread.
    assert found["wall"]["texts"] == 2.0 and "writing" not in found["wall"]
