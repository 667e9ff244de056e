"""A strict reader of the Trace Event Format, as its document describes the JSON object format.

It knows the phases that our traces have, and refuses any other, any unknown field of an event, and
whatever a viewer would drop or draw wrongly: spans of a thread that overlap without nesting,
asynchronous events without their counterpart, counters that are no numbers.
"""

import json
import math
from collections import defaultdict
from typing import Any

_COMMON = {"name": str, "ph": str, "ts": (int, float), "pid": int}
# By phase: fields that must be there beside the common ones, and fields that may be.
_FIELDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "X": ({"dur": (int, float), "tid": int}, {"cat": str, "args": dict}),
    "b": ({"id": str, "cat": str, "tid": int}, {"args": dict}),
    "n": ({"id": str, "cat": str, "tid": int}, {"args": dict}),
    "e": ({"id": str, "cat": str, "tid": int}, {"args": dict}),
    "C": ({"args": dict}, {"cat": str, "tid": int}),
    "i": ({"tid": int, "s": str}, {"cat": str, "args": dict}),
    "M": ({"args": dict}, {"tid": int, "cat": str}),
}
_METADATA = {
    "process_name": ("name", str),
    "process_labels": ("labels", str),
    "process_sort_index": ("sort_index", int),
    "thread_name": ("name", str),
    "thread_sort_index": ("sort_index", int),
}
_TOP = {"traceEvents", "displayTimeUnit", "otherData", "metadata"}


def read_trace(text: str) -> list[dict[str, Any]]:
    """Return the events of a trace.

    Raises:
        ValueError: it breaks the format; the message names the event.
    """
    trace = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_make_object)
    _require(isinstance(trace, dict) and isinstance(trace.get("traceEvents"), list), "no object")
    _require(trace.keys() <= _TOP, f"unknown fields {trace.keys() - _TOP}")
    _require(trace.get("displayTimeUnit", "ms") in ("ms", "ns"), "displayTimeUnit")
    events = trace["traceEvents"]
    for event in events:
        _check_event(event)
    _check_nesting([event for event in events if event["ph"] == "X"])
    _check_async([event for event in events if event["ph"] in "bne"])
    _check_names(events)
    return events


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _require(len(dict(pairs)) == len(pairs), f"a name occurs twice: {pairs}")
    return dict(pairs)


def _require(condition: bool, what: Any) -> None:
    if not condition:
        raise ValueError(str(what))


def _check_event(event: Any) -> None:
    _require(isinstance(event, dict), event)
    _require(event.get("ph") in _FIELDS, f"unknown phase: {event}")
    required, optional = _FIELDS[event["ph"]]
    required = _COMMON | required
    _require(required.keys() <= event.keys(), f"a field is missing: {event}")
    for name, value in event.items():
        kind = (required | optional).get(name)
        _require(kind is not None, f"unknown field {name}: {event}")
        _require(isinstance(value, kind) and not isinstance(value, bool), f"{name}: {event}")
    _require(math.isfinite(event["ts"]) and event["ts"] >= 0, f"ts: {event}")
    if event["ph"] == "X":
        _require(math.isfinite(event["dur"]) and event["dur"] >= 0, f"dur: {event}")
    elif event["ph"] == "i":
        _require(event["s"] in ("g", "p", "t"), f"scope: {event}")
    elif event["ph"] == "C":
        values = event["args"].values()
        _require(bool(values), f"a counter without value: {event}")
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        _require(numbers, f"a counter of texts: {event}")
    elif event["ph"] == "M":
        _require(event["name"] in _METADATA, f"unknown metadata: {event}")
        field, kind = _METADATA[event["name"]]
        _require(isinstance(event["args"].get(field), kind), f"metadata: {event}")
        _require(event["name"].startswith("process") or "tid" in event, f"no thread: {event}")


def _check_nesting(events: list[dict[str, Any]]) -> None:
    """Spans of a thread lie inside one another or apart, to the nanosecond."""
    threads = defaultdict(list)
    for event in events:
        begin = round(event["ts"] * 1000)
        end = begin + round(event["dur"] * 1000)
        threads[event["pid"], event["tid"]].append((begin, -end, event["name"]))
    for spans in threads.values():
        ends: list[int] = []
        for begin, negative_end, name in sorted(spans):
            while ends and ends[-1] <= begin:
                ends.pop()
            _require(not ends or -negative_end <= ends[-1], f"{name} at {begin} ns overlaps")
            ends.append(-negative_end)


def _check_async(events: list[dict[str, Any]]) -> None:
    """Each begins once, ends once, and has its moments between."""
    groups = defaultdict(list)
    for event in events:
        groups[event["cat"], event["id"]].append(event)
    for group in groups.values():
        phases = "".join(event["ph"] for event in group)
        _require(phases[0] == "b" and phases[-1] == "e", f"{phases}: {group}")
        _require(set(phases[1:-1]) <= {"n"}, f"{phases}: {group}")
        times = [event["ts"] for event in group]
        _require(times == sorted(times), f"times: {group}")
        _require(len({event["name"] for event in group}) == 1, f"names: {group}")


def _check_names(events: list[dict[str, Any]]) -> None:
    """Each process and thread that spans are on has one name."""
    names: dict[Any, str] = {}
    for event in events:
        if event["ph"] == "M" and event["name"].endswith("_name"):
            key = (event["pid"], event.get("tid") if event["name"] == "thread_name" else None)
            _require(key not in names, f"named twice: {event}")
            names[key] = event["args"]["name"]
    for event in events:
        _require((event["pid"], None) in names, f"a process without name: {event}")
        if event["ph"] == "X":
            _require((event["pid"], event["tid"]) in names, f"a thread without name: {event}")
