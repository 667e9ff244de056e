"""Records of a process reach its files whole, whatever they hold and however the process ends."""

import gzip
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.patience import scale_deadline
from tests.helpers.small_disk import run_on_disk
from verl_pipeline.telemetry.records import Moment, Pool, Span, Text, TrajectoryEvent
from verl_pipeline.telemetry.writer import RecordWriter, serialize_record


def make_writer(folder, **options):
    """A writer whose thread writes nothing by itself."""
    return RecordWriter(folder, "test-1", time.monotonic, flush_every_s=1e6, **options)


def make_span(detail=None, start=1.0):
    return Span(Pool.TRAINER, "driver", "step", start, 2.0, 1, detail=detail or {})


def read_lines(path: Path) -> list[dict]:
    """The lines that are complete."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.text(st.characters(categories=["Cs"]), max_size=2)
    | st.binary(max_size=8)
    | st.just(object())
    | st.just(np.float32(1.5))
    | st.just(np.float64("nan"))
    | st.just(np.arange(3)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(), max_size=4), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


@given(detail=st.dictionaries(st.text(max_size=5), values, max_size=4), start=st.floats())
def test_any_record_becomes_one_line_of_strict_json(detail, start):
    line = serialize_record(make_span(detail, start))
    assert line.endswith(b"\n") and line.count(b"\n") == 1

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    found = json.loads(line.decode("utf-8"), parse_constant=refuse)
    assert found["name"] == "step"
    assert found.get("start") == (start if math.isfinite(start) else None)


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no text")

    __str__ = __repr__


def test_what_has_no_text_and_what_contains_itself_are_lines_too():
    endless: list = []
    endless.append(endless)
    for value in (Unprintable(), endless, {"of": endless}, {Unprintable(): 1}):
        assert json.loads(serialize_record(make_span({"value": value})))["detail"]


def test_unknown_fields_are_left_out():
    line = json.loads(serialize_record(TrajectoryEvent(Moment.SUBMITTED, 1.0, "b1p0")))
    assert line == {"moment": "submitted", "t": 1.0, "prompt": "b1p0", "is_validation": False}


def test_kinds_have_files_of_their_own_and_texts_are_compressed(tmp_path):
    writer = make_writer(tmp_path / "new" / "folder")
    writer.add("spans", make_span())
    for step in (1, 2):
        writer.add("texts", Text("b1p0", 0, step, "prompt\nof two lines", "response"))
        writer.flush()
    writer.close()
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == [
        "spans-test-1.jsonl",
        "texts-test-1.jsonl.gz",
    ]
    texts = gzip.decompress((folder / "texts-test-1.jsonl.gz").read_bytes()).splitlines()
    assert [json.loads(line)["step"] for line in texts] == [1, 2]


def test_many_records_are_made_when_they_are_written(tmp_path):
    writer = make_writer(tmp_path)
    starts = [1.0]
    writer.add("spans", lambda: [make_span(start=start) for start in starts])
    starts.append(2.0)
    writer.close()
    written = [line["start"] for line in read_lines(tmp_path / "spans-test-1.jsonl")]
    assert written == [1.0, 2.0]


def test_records_wait_in_bounded_room_and_what_is_lost_is_told(tmp_path, capsys):
    writer = make_writer(tmp_path, max_waiting=3)
    for start in range(5):
        writer.add("spans", make_span(start=float(start)))
    writer.close()
    starts = [line["start"] for line in read_lines(tmp_path / "spans-test-1.jsonl")]
    assert starts == [0.0, 1.0, 2.0]
    (problem,) = read_lines(tmp_path / "problems-test-1.jsonl")
    assert problem["text"].startswith("2 records were lost")
    assert "2 records were lost" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named_once_and_tried_again(tmp_path, capsys):
    folder = tmp_path / "telemetry"
    folder.write_text("a file")
    writer = make_writer(folder)
    for start in (1.0, 2.0):
        writer.add("spans", make_span(start=start))
        writer.flush()
    shown = capsys.readouterr().err
    assert shown.count("WARNING") == 1 and str(folder) in shown
    folder.unlink()
    writer.close()
    assert [line["start"] for line in read_lines(folder / "spans-test-1.jsonl")] == [1.0, 2.0]
    (problem,) = read_lines(folder / "problems-test-1.jsonl")
    assert "cannot be written to" in problem["text"]


FILLING = """
import sys, time
from pathlib import Path
from verl_pipeline.telemetry.records import Pool, Span
from verl_pipeline.telemetry.writer import RecordWriter

folder = Path(sys.argv[1])
writer = RecordWriter(folder, "test-1", time.monotonic, flush_every_s=1e6)
for start in range(200):
    writer.add("spans", Span(Pool.TRAINER, "driver", "step", float(start), 0.0))
    writer.flush()
(folder / "filler").unlink()
writer.close()
print("the run goes on")
"""


@pytest.mark.medium
def test_on_a_full_disk_lines_stay_whole_and_nothing_is_lost_that_finds_room_later(tmp_path):
    run = run_on_disk("full", tmp_path, sys.executable, "-c", FILLING, str(tmp_path))
    assert run.exit_code == 0, run.output
    assert "the run goes on" in run.output
    assert run.output.count("WARNING") == 1 and "No space left" in run.output
    spans = bytes.fromhex(run.after["spans-test-1.jsonl"].split()[1])
    starts = [json.loads(line)["start"] for line in spans.split(b"\n")[:-1]]
    assert starts == [float(start) for start in range(200)]
    problems = bytes.fromhex(run.after["problems-test-1.jsonl"].split()[1])
    assert b"No space left" in problems


WRITING = """
import os, sys, time
from pathlib import Path
from verl_pipeline.telemetry.records import Pool, Span
from verl_pipeline.telemetry.writer import RecordWriter

writer = RecordWriter(Path(sys.argv[1]), str(os.getpid()), time.monotonic, flush_every_s=0.001)
print("ready", flush=True)
number = 0
while number < int(sys.argv[2]):
    writer.add("spans", Span(Pool.TRAINER, "x" * (number % 3000), "step", float(number), 0.0))
    number += 1
    if number % 50 == 0:
        time.sleep(0.001)
"""


def start_writing(folder, records):
    command = [sys.executable, "-c", WRITING, str(folder), str(records)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


@pytest.mark.medium
def test_a_killed_process_leaves_whole_lines_but_for_the_last(tmp_path):
    process = start_writing(tmp_path, 10**9)
    process.stdout.readline()
    path = tmp_path / f"spans-{process.pid}.jsonl"
    deadline = time.monotonic() + scale_deadline(60)
    while not (path.exists() and path.stat().st_size > 100_000):
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    starts = [line["start"] for line in read_lines(path)]
    assert starts == [float(number) for number in range(len(starts))]
    assert len(starts) > 10


@pytest.mark.medium
def test_processes_of_one_folder_end_with_all_their_records_written(tmp_path):
    processes = [start_writing(tmp_path, 300) for _ in range(4)]
    for process in processes:
        assert process.wait(scale_deadline(60)) == 0
    files = sorted(tmp_path.iterdir())
    assert len(files) == 4
    for path in files:
        assert [line["start"] for line in read_lines(path)] == [float(n) for n in range(300)]
