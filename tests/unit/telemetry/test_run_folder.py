"""Reading a run's folder: what is whole is read, the rest counted, and a wrong folder named."""

import gzip
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.made_up_run import make_header, write_run
from tests.helpers.simulated_run import START, MadeUpRun
from verl_pipeline.telemetry.accounting import bill_run
from verl_pipeline.telemetry.record_files import parse_line, read_table
from verl_pipeline.telemetry.records import (
    FOLDER,
    ClockSample,
    Gauge,
    Header,
    Moment,
    Pool,
    Span,
    TrajectoryEvent,
)
from verl_pipeline.telemetry.run_folder import load_run
from verl_pipeline.telemetry.run_starts import RunFolderError

SMALL = MadeUpRun(steps=2, prompts=2, group=2, gauge_every_s=20.0)
EVENT = {"moment": "started", "t": START + 1.0, "prompt": "b1p0", "session": 0}
WHOLE = json.dumps(EVENT).encode()


@pytest.fixture
def folder(tmp_path):
    write_run(tmp_path, SMALL)
    return tmp_path


def find_file(folder, kind):
    (path, *_) = sorted((folder / FOLDER).glob(f"{kind}-*"))
    return path


def append(folder, kind, *records, process="agent_loop-node1-7-0"):
    lines = [r if isinstance(r, str) else json.dumps(vars(r)) for r in records]
    with (folder / FOLDER / f"{kind}-{process}.jsonl").open("a") as file:
        file.write("".join(line + "\n" for line in lines))


def read(tmp_path, content, record=TrajectoryEvent):
    path = tmp_path / "records.jsonl"
    path.write_bytes(content)
    return read_table(path, record)


def test_a_run_is_read_whole(folder):
    run = load_run(folder)
    assert (run.broken_lines, run.problems, run.has_ended) == (0, [], True)
    assert run.header == make_header(SMALL)
    assert [step.step for step in run.steps] == [1, 2]
    assert run.trajectories.num_rows == SMALL.steps * SMALL.prompts * SMALL.group
    row = run.trajectories.slice(0, 1).to_pylist()[0]
    assert row["submitted"] <= row["started"] < row["first_token"] < row["generated"]
    assert row["generated"] < row["graded"] and row["trained"] or row["filtered"]
    texts = list(run.read_texts())
    assert {text.step for text in texts} == {1, 2}
    assert [text.step for text in run.read_texts(step=2)] == [2, 2]


@pytest.mark.parametrize("every", [89, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["run", "spans", "gauges", "trajectories", "steps", "texts"])
def test_a_file_cut_at_any_byte_is_read_up_to_there(folder, kind, every):
    path = find_file(folder, kind)
    whole = path.read_bytes()
    for cut in range(0, len(whole), every):
        path.write_bytes(whole[:cut])
        is_cut = kind != "texts" and not whole[:cut].endswith(b"\n") and whole[cut] != ord("\n")
        try:
            run = load_run(folder)
        except RunFolderError as error:
            assert kind == "run" and is_cut | (cut == 0) and "try again" in str(error)
            continue
        assert run.broken_lines == (is_cut and cut > 0)
        list(run.read_texts())
        bill_run(run)


# Pieces of lines, as a killed process or two that write at once leave them.
PIECES = st.sampled_from(
    [
        *(WHOLE[:5], WHOLE[5:], b"\n", b"{", b"}", b"null", b"[]", b"[[[[", b'"', b" ", b"\r\n"),
        *(b"\x00", b"\xff\xfe", b'{"t": 1e999}', b'"reason": "}"', b", ", WHOLE, WHOLE + b"\n"),
        WHOLE.replace(b"b1p0", b"{b1[p}0"),
        WHOLE.replace(b"b1p0", b"\\ud800"),
        WHOLE.replace(b'"started"', b'"graded", "reward": NaN'),
        WHOLE.replace(b'"started"', b'"graded", "reward": Infinity'),
        WHOLE.replace(b'"session": 0', b'"session": 1' + b"0" * 400),
        WHOLE.replace(b'"session": 0', b'"session": "0"'),
        WHOLE.replace(b'"session": 0', b'"session": -1.0, "later_field": {"a": [1]}'),
        WHOLE.replace(b'"started"', b'"unheard of"'),
        WHOLE.replace(b'"t": 17', b'"t": -17'),
        WHOLE.replace(b'"t": 17', b'"t": 1717171717'),
        b'{"a":' * 3000,
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(pieces=st.lists(PIECES, max_size=12))
def test_the_fast_reader_reads_what_the_careful_one_does(tmp_path, pieces):
    content = b"".join(pieces)
    table, broken = read(tmp_path, content)
    lines = [line for line in content.split(b"\n") if line.strip()]
    records = [row for line in lines if (row := parse_line(line, TrajectoryEvent)) is not None]
    expected = [vars(TrajectoryEvent(**row)) for row in records]
    assert table.to_pylist() == expected
    assert broken == len(lines) - len(expected)


@pytest.mark.parametrize(
    "content", [b"null\n", b"null", b"null\nnull\n", b'null{"a": 1}', b'{"a":' * 200_000]
)
def test_what_ends_the_parser_does_not_reach_it(tmp_path, content):
    table, broken = read(tmp_path, content)
    assert table.num_rows == 0 and broken == len(content.splitlines())


def test_arrows_parser_still_needs_that_care():
    """If this fails, the check for flat objects in ``record_files.py`` may have lost its reason."""
    code = "import pyarrow as pa, pyarrow.json as pj; pj.read_json(pa.BufferReader(b'null\\n'))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode != 0


def test_only_the_end_of_long_files_is_read_if_asked(folder):
    path = find_file(folder, "trajectories")
    lines = path.read_bytes().splitlines(keepends=True)
    for count in (0, 1, 5):
        size = sum(map(len, lines[len(lines) - count :]))
        for extra in (0, 1, len(lines[-count - 1]) - 1):
            table, broken = read_table(path, TrajectoryEvent, size + extra)
            assert (table.num_rows, broken) == (count, 0)
    assert read_table(path, TrajectoryEvent, 1 << 40)[0].num_rows == len(lines)


def test_processes_are_brought_onto_the_drivers_clock(folder):
    header = make_header(SMALL, role="replica", host="node1")
    samples = [ClockSample(START + 5000, -5000.0, 0.5), ClockSample(START + 5100, -5010.0, 0.5)]
    append(folder, "run", header, *samples)
    append(folder, "gauges", Gauge("replica 9", START + 5050, running=3.0))
    event = TrajectoryEvent(
        Moment.GENERATED, START + 5050, "far", session=0, first_token=START + 5000.0
    )
    append(folder, "trajectories", event)
    run = load_run(folder)
    (gauge,) = [row for row in run.gauges.to_pylist() if row["lane"] == "replica 9"]
    assert gauge["t"] == pytest.approx(START + 45)
    (row,) = [row for row in run.trajectories.to_pylist() if row["prompt"] == "far"]
    assert row["generated"] == pytest.approx(START + 45)
    assert row["first_token"] == pytest.approx(START)
    assert any("clocks" in problem and "0.5 s" in problem for problem in run.problems)


def test_a_trajectory_that_was_started_again_tells_its_last_life(folder):
    def event(moment, t, **values):
        return TrajectoryEvent(moment, START + t, "again", **{"session": 0, "batch": 9} | values)

    first = [event(Moment.STARTED, 1), event(Moment.GENERATED, 5, first_token=START + 2.0)]
    again = [event(Moment.STARTED, 50), event(Moment.GRADED, 70, reward=1.0)]
    prompt = event(Moment.SUBMITTED, 0.5, session=None, row=4)
    append(folder, "trajectories", *again, *first, prompt)
    (row,) = [row for row in load_run(folder).trajectories.to_pylist() if row["prompt"] == "again"]
    assert row["attempts"] == 2 and row["started"] == START + 50
    assert row["generated"] is None and row["first_token"] is None
    assert (row["submitted"], row["row"], row["reward"]) == (START + 0.5, 4, 1.0)


def test_a_prompt_without_trajectories_has_a_row(folder):
    event = TrajectoryEvent(Moment.SUBMITTED, START + 1, "alone", batch=2)
    append(folder, "trajectories", event)
    rows = load_run(folder).trajectories.to_pylist()
    assert [row["session"] for row in rows if row["prompt"] == "alone"] == [None]


def test_a_repeated_step_and_the_runs_own_problems_are_told(folder):
    append(folder, "steps", '{"t": %f, "step": 2, "metrics": {"a": 1, "b": "x"}}' % (START + 900))
    append(folder, "problems", '{"t": 5.0, "text": "a disk was full\\u001b[31m"}')
    run = load_run(folder)
    assert [(step.step, step.metrics) for step in run.steps][1] == (2, {"a": 1})
    assert run.problems == ["a disk was full\\x1b[31m"]


def test_a_run_that_failed_says_why(folder):
    end, detail = START + 99, {"error": "out of memory\x1b[31m"}
    append(folder, "spans", Span(Pool.TRAINER, "driver", "end", end, end, detail=detail))
    run = load_run(folder)
    assert run.has_ended and run.problems == ["the run failed: out of memory\\x1b[31m"]


def test_several_starts_are_in_order(folder):
    append(folder, "run", make_header(SMALL, started=START + 500, first_step=2))
    append(folder, "run", make_header(SMALL, role="trainer", started=START + 600))
    run = load_run(folder)
    assert [header.started for header in run.headers] == [START, START + 500]
    assert not run.has_ended  # the second start did not


def test_another_process_stands_in_for_a_driver_that_is_missing(folder):
    find_file(folder, "run").unlink()
    append(folder, "run", make_header(SMALL, role="trainer"))
    run = load_run(folder)
    assert "driver" in run.problems[0] and run.headers[0].role == "trainer"


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"format": 2, "mode": None, "versions": {"verl-pipeline": "9.1"}}]
)
def test_records_of_another_version_are_refused(folder, change):
    path = find_file(folder, "run")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(
        RunFolderError, match="format 2, .* reads 1; use the verl-pipeline"
    ) as error:
        load_run(folder)
    assert ("9.1" in str(error.value)) == ("versions" in change)


def test_a_header_may_leave_out_what_is_null(folder):
    path = find_file(folder, "run")
    values = json.loads(path.read_text())
    path.write_text(json.dumps({name: v for name, v in values.items() if v is not None}))
    assert load_run(folder).header == replace_header(values)


def replace_header(values):
    return Header(**{"staleness": None, "slots": None} | values)


WRONG = {
    "nothing": (lambda at: at / "nothing", "no such folder"),
    "file": (lambda at: _write(at / "file"), "is a file"),
    "empty": (lambda at: _make(at / "empty"), "it is empty"),
    "other": (lambda at: _write(_make(at / "other") / "a.txt").parent, "it holds a.txt"),
    "above": (lambda at: at / "above", "holds runs; give one of them, e.g. .*above/inner"),
    "long": (lambda at: at / ("n" * 300), "cannot be read"),
    "null": (lambda at: at / "a\0b", "no such folder"),
}


def _make(path):
    path.mkdir()
    return path


def _write(path):
    path.write_text("x")
    return path


@pytest.mark.parametrize("kind", WRONG)
def test_a_folder_that_is_no_run_is_named_with_what_to_give(tmp_path, kind):
    make, message = WRONG[kind]
    if kind == "above":
        write_run(tmp_path / "above" / "inner", replace(SMALL, steps=1))
    with pytest.raises(RunFolderError, match=message) as error:
        load_run(make(tmp_path))
    assert "\n" not in str(error.value)


def test_the_folder_of_records_stands_for_the_run(folder):
    assert load_run(folder / FOLDER).trajectories.num_rows == load_run(folder).trajectories.num_rows


def test_damaged_texts_end_where_they_are_damaged(folder):
    path = find_file(folder, "texts")
    whole = path.read_bytes()
    path.write_bytes(whole + gzip.compress(b'{"prompt": 5}\n') + whole[:-9])
    texts = list(load_run(folder).read_texts())
    assert len(texts) >= 4 and all(isinstance(text.prompt, str) for text in texts)


def test_spans_keep_their_details(folder):
    append(
        folder, "spans", Span(Pool.REWARD, "worker 1", "reward", START, START + 1, detail={"n": 1})
    )
    details = load_run(folder).spans["detail"].to_pylist()
    assert details.count('{"n": 1}') == 1 and set(details) == {"{}", '{"n": 1}'}
