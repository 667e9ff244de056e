"""Writes a run as a trace that Perfetto (ui.perfetto.dev) and chrome://tracing open.

The format is the JSON object of the "Trace Event Format": complete events (``X``) for spans,
asynchronous ones (``b``, ``n``, ``e``) for trajectories, which overlap, counters (``C``) for the
engines' statistics and the reward, metadata (``M``) for the names of pools and lanes.

Invariants:
* Times are microseconds from the first moment of the run, to the nanosecond, never negative.
* Complete events of a thread lie inside one another or apart: spans that do not are put on threads
  of their own.
* Every span, trajectory and gauge of the run is in the trace; nothing is joined or left out.
"""

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from verl_pipeline.outputs.files import refuse_foreign_text, replace_file
from verl_pipeline.report.columns import read_categories, read_numbers
from verl_pipeline.report.trajectory_rows import TrajectoryRows
from verl_pipeline.telemetry.run_folder import Run

MARK = "verl-pipeline trace"
# Processes of the trace.
PROCESSES = {"trainer": 1, "rollout": 2, "reward": 3}
COUNTERS = {"requests": ("running", "waiting"), "KV cache": ("kv_share",)}
_EVENTS_A_WRITE = 4096


def write_trace(path: Path, run: Run, rows: TrajectoryRows, began: float) -> int:
    """Write the trace; it is compressed if the name ends with ``.gz``.

    Args:
        began: the time that is 0 in the trace.

    Returns:
        The number of events.

    Raises:
        OutputError: the system refuses, or the file is something else than a trace of ours.
    """
    if not path.name.endswith(".gz"):
        refuse_foreign_text(path, MARK, "a trace of verl-pipeline report", "--trace")
    other = {"made by": MARK, "run": run.header.run_name, "mode": run.header.mode}
    head = json.dumps({"otherData": other, "displayTimeUnit": "ms"})[:-1]
    events = list_events(run, rows, began)
    with replace_file(path) as file:
        if path.name.endswith(".gz"):
            with gzip.GzipFile("", "wb", 6, file, 0) as compressed:
                return _write_events(compressed, head, events)
        return _write_events(file, head, events)


def _write_events(out: Any, head: str, events: Iterator[str]) -> int:
    """Write the whole object to a binary file, and return the number of events."""
    out.write(f'{head}, "traceEvents": ['.encode())
    count = 0
    while part := list(itertools.islice(events, _EVENTS_A_WRITE)):
        out.write((",\n" * bool(count) + ",\n".join(part)).encode())
        count += len(part)
    out.write(b"]}\n")
    return count


def list_events(run: Run, rows: TrajectoryRows, began: float) -> Iterator[str]:
    """Yield the events as JSON."""
    yield from _name_processes(run)
    yield from _list_spans(run, began)
    yield from _list_trajectories(rows, began)
    yield from _list_gauges(run, began)
    for record in run.steps:
        reward = record.metrics.get("critic/score/mean", record.metrics.get("critic/rewards/mean"))
        if reward is not None and np.isfinite(reward):
            yield _encode("reward", "C", record.t - began, pid=1, args={"mean": reward})
    end = "end" if run.has_ended else "last record (the run has not ended)"
    yield _encode(end, "i", run.last_time - began, pid=1, tid=0, s="g")


def _encode(name: str, phase: str, t: float, **fields: Any) -> str:
    time = f'"ts": {_format_us(_to_ns(t))}'
    rest = json.dumps(fields, allow_nan=False)[1:-1]
    return f'{{"name": {json.dumps(name)}, "ph": "{phase}", {time}, {rest}}}'


def _to_ns(t: float) -> int:
    return max(round(t * 1e9), 0)


def _format_us(ns: int) -> str:
    return f"{ns // 1000}.{ns % 1000:03d}"


def _name_processes(run: Run) -> Iterator[str]:
    for pool, pid in PROCESSES.items():
        yield _encode("process_name", "M", 0, pid=pid, args={"name": pool})
        yield _encode("process_sort_index", "M", 0, pid=pid, args={"sort_index": pid})


def _list_spans(run: Run, began: float) -> Iterator[str]:
    """Yield the spans lane by lane, with the names of the lanes' threads."""
    pools, lanes, names, details = (
        read_categories(run.spans, column) for column in ("pool", "lane", "name", "detail")
    )
    start, end, step, batch = (
        read_numbers(run.spans, column) for column in ("start", "end", "step", "batch")
    )
    next_thread = dict.fromkeys(PROCESSES, 1)
    for pool in PROCESSES:
        of_pool = pools.select(pool)
        for lane in sorted({lanes.names[code] for code in np.unique(lanes.codes[of_pool])}):
            own = np.flatnonzero(of_pool & lanes.select(lane))
            times = [(_to_ns(start[i] - began), _to_ns(end[i] - began)) for i in own.tolist()]
            ends = [max(times[k]) for k in range(len(times))]
            order = sorted(range(len(own)), key=lambda k: (times[k][0], -ends[k]))
            threads: list[list[int]] = []
            for k in order:
                begin, stop, place = times[k][0], ends[k], int(own[k])
                thread = _find_thread(threads, begin, stop)
                number = next_thread[pool] + thread
                args: dict[str, Any] = {}
                if not np.isnan(step[place]):
                    args["step"] = int(step[place])
                if not np.isnan(batch[place]):
                    args["batch"] = int(batch[place])
                if details.codes[place] >= 0:
                    args |= json.loads(details.names[details.codes[place]])
                name = json.dumps(names.names[names.codes[place]])
                yield (
                    f'{{"name": {name}, "cat": "span", "ph": "X", "ts": {_format_us(begin)}, '
                    f'"dur": {_format_us(stop - begin)}, "pid": {PROCESSES[pool]}, '
                    f'"tid": {number}, "args": {json.dumps(args)}}}'
                )
            for thread in range(len(threads)):
                title = lane if thread == 0 else f"{lane} ({thread + 1})"
                number = next_thread[pool] + thread
                tid = {"pid": PROCESSES[pool], "tid": number}
                yield _encode("thread_name", "M", 0, **tid, args={"name": title})
                yield _encode("thread_sort_index", "M", 0, **tid, args={"sort_index": number})
            next_thread[pool] += max(len(threads), 1)


def _find_thread(threads: list[list[int]], begin: int, stop: int) -> int:
    """Return the first thread on which a span lies inside the open ones or apart from them.

    Args:
        threads: the ends of each thread's open spans, the innermost last; changed.
    """
    for number, open_ends in enumerate(threads):
        while open_ends and open_ends[-1] <= begin:
            open_ends.pop()
        if not open_ends or stop <= open_ends[-1]:
            open_ends.append(stop)
            return number
    threads.append([stop])
    return len(threads) - 1


def _list_trajectories(rows: TrajectoryRows, began: float) -> Iterator[str]:
    prompts = [json.dumps(name) for name in rows.prompt.names]
    replicas = [json.dumps(name) for name in rows.replica.names] + ["null"]
    graders = [json.dumps(name) for name in rows.reward_worker.names] + ["null"]
    shared = '"cat": "trajectory", "pid": 2, "tid": 0'
    columns = (
        rows.asked - began,
        np.fmax(rows.stopped, rows.started) - began,
        rows.started - began,
        rows.first_token - began,
        rows.prompt.codes,
        rows.replica.codes,
        rows.reward_worker.codes,
        rows.fates,
        *(rows.session, rows.step, rows.response_tokens, rows.reward),
    )
    for number, row in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        asked, stopped, place, first, prompt, replica, grader, fate, *numbers = row
        if asked != asked:
            continue
        begin, end = _to_ns(asked), _to_ns(max(stopped, asked))
        head = f'{{"name": {prompts[prompt]}, {shared}, "id": "{number:#x}"'
        figures = zip(("session", "step", "tokens", "reward"), numbers, strict=True)
        known = "".join(
            f', "{name}": {value!r}'
            for name, value in figures
            if value == value and abs(value) != np.inf
        )
        graded_by = f', "graded by": {graders[grader]}' if grader >= 0 else ""
        args = f'{{"replica": {replicas[replica]}, "fate": "{fate}"{graded_by}{known}}}'
        yield f'{head}, "ph": "b", "ts": {_format_us(begin)}, "args": {args}}}'
        for name, moment in (("has its place", place), ("first token", first)):
            if moment == moment and (name == "first token" or moment > asked):
                at = _format_us(min(max(_to_ns(moment), begin), end))
                yield f'{head}, "ph": "n", "ts": {at}, "args": {{"is": "{name}"}}}}'
        yield f'{head}, "ph": "e", "ts": {_format_us(end)}, "args": {{}}}}'


def _list_gauges(run: Run, began: float) -> Iterator[str]:
    lanes = read_categories(run.gauges, "lane")
    times = read_numbers(run.gauges, "t")
    for title, fields in COUNTERS.items():
        values = [read_numbers(run.gauges, field) for field in fields]
        for place in np.flatnonzero(lanes.codes >= 0).tolist():
            args = {
                field: float(column[place])
                for field, column in zip(fields, values, strict=True)
                if np.isfinite(column[place])
            }
            if args:
                name = f"{lanes.names[lanes.codes[place]]}: {title}"
                yield _encode(name, "C", times[place] - began, pid=2, args=args)
