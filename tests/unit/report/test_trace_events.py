"""A trace keeps the documented format and holds everything that the run's records hold."""

import gzip
import json
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.made_up_run import write_run
from tests.helpers.simulated_run import MadeUpRun
from tests.helpers.trace_format import read_trace
from verl_pipeline.outputs.errors import OutputError
from verl_pipeline.report.trace_events import list_events, write_trace
from verl_pipeline.report.trajectory_rows import read_trajectory_rows
from verl_pipeline.telemetry.run_folder import load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, MadeUpRun(steps=4, save_every=2, test_every=2))
    return load_run(folder)


def get_began(run):
    return run.headers[0].started


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
def test_a_trace_keeps_the_format_and_has_every_record(run, tmp_path, name):
    rows = read_trajectory_rows(run)
    count = write_trace(tmp_path / name, run, rows, get_began(run))
    data = (tmp_path / name).read_bytes()
    text = gzip.decompress(data) if name.endswith(".gz") else data
    events = read_trace(text.decode())
    assert len(events) == count
    phases = [event["ph"] for event in events]
    assert phases.count("X") == len(run.spans)
    assert phases.count("b") == phases.count("e") == len(rows)
    graders = [event["args"].get("graded by") for event in events if event["ph"] == "b"]
    expected = [row["reward_worker"] for row in run.trajectories.to_pylist() if row["started"]]
    assert sorted(filter(None, graders)) == sorted(filter(None, expected)) != []
    running = [event for event in events if event["ph"] == "C" and "running" in event["args"]]
    assert len(running) == len(run.gauges)
    spans = run.spans.to_pylist()
    longest = max(spans, key=lambda span: span["end"] - span["start"])
    found = max((event for event in events if event["ph"] == "X"), key=lambda event: event["dur"])
    assert found["name"] == longest["name"]
    assert found["dur"] == pytest.approx(1e6 * (longest["end"] - longest["start"]))


@pytest.mark.parametrize("mode", ["one_off_pipeline", "sync", "separate_async"])
@pytest.mark.parametrize("killed_at", [None, 75.0, 21.0])
def test_traces_of_all_modes_and_of_killed_runs_keep_the_format(tmp_path, mode, killed_at):
    write_run(tmp_path, MadeUpRun(mode=mode, steps=3, killed_at=killed_at))
    run = load_run(tmp_path)
    text = ",".join(list_events(run, read_trajectory_rows(run), get_began(run)))
    events = read_trace(f'{{"traceEvents": [{text}]}}')
    assert events[-1]["name"].startswith("end" if run.has_ended else "last record")


times = st.floats(0, 100, allow_nan=False)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(times, times, st.text(max_size=5)), max_size=30))
def test_spans_that_overlap_go_on_threads_of_their_own(run, spans):
    """Whatever a run wrote: overlaps, spans that end before they begin, any text as a name."""
    rows = [
        {name: None for name in run.spans.column_names}
        | {"pool": "trainer", "lane": "driver", "name": name, "start": start, "end": end}
        | {"detail": json.dumps({"x": name})}
        for start, end, name in spans
    ]
    table = pa.Table.from_pylist(rows, run.spans.schema).sort_by("start")
    none = {"trajectories": run.trajectories.slice(0, 0), "gauges": run.gauges.slice(0, 0)}
    changed = replace(run, spans=table, **none)
    text = ",".join(list_events(changed, read_trajectory_rows(run), 0.0))
    events = read_trace(f'{{"traceEvents": [{text}]}}')
    names = sorted(event["name"] for event in events if event["ph"] == "X")
    assert names == sorted(name for _, _, name in spans)


def test_a_file_that_is_no_trace_is_not_replaced(run, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(OutputError, match="choose another --trace"):
        write_trace(path, run, read_trajectory_rows(run), get_began(run))
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("event", "what"),
    [
        ('{"name": "a", "ph": "X", "ts": 1, "pid": 1, "tid": 1}', "missing"),
        ('{"name": "a", "ph": "Q", "ts": 1, "pid": 1, "tid": 1}', "phase"),
        ('{"name": "a", "ph": "X", "ts": -1, "dur": 1, "pid": 1, "tid": 1}', "ts"),
        ('{"name": "a", "ph": "X", "ts": NaN, "dur": 1, "pid": 1, "tid": 1}', "NaN"),
        ('{"name": "a", "ph": "C", "ts": 1, "pid": 1, "args": {"x": "1"}}', "texts"),
        ('{"name": "a", "ph": "b", "ts": 1, "pid": 1, "tid": 1, "id": "1", "cat": "c"}', "b"),
        (
            '{"name": "a", "ph": "X", "ts": 1, "dur": 5, "pid": 1, "tid": 1}, '
            '{"name": "b", "ph": "X", "ts": 3, "dur": 5, "pid": 1, "tid": 1}',
            "overlaps",
        ),
    ],
)
def test_the_checker_finds_faults(event, what):
    with pytest.raises(ValueError, match=what):
        read_trace(f'{{"traceEvents": [{event}]}}')
