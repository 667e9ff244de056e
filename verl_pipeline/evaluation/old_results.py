"""Reads results that were written before caveats were recorded (schema 1).

Invariants:
* Every warning and note of such results becomes a caveat of the scores that it concerns.
* Every score has the caveat ``unrecorded``: what was not recorded cannot be derived.
"""

import re
from typing import Any

from verl_pipeline.evaluation.caveats import Caveat

SCHEMA_WITHOUT_CAVEATS = 1
_UNRECORDED = (
    "results.json is of an earlier version, which recorded no caveats: repeat the evaluation's "
    "command (its samples are reused)"
)


def add_caveats(results: dict[str, Any]) -> dict[str, Any]:
    """Return results of schema 1 with the caveats that can be derived."""
    names = [task["task"] for task in results["tasks"]]
    tasks = []
    for task in results["tasks"]:
        caveats = [
            Caveat("unrecorded", _UNRECORDED),
            *map(_read_note, task["data"].get("notes", [])),
        ]
        for warning in results.get("warnings", []):
            name, mark, text = warning.partition(": ")
            if not mark or name not in names:
                caveats.append(Caveat("unrecorded", warning))
            elif name == task["task"]:
                caveats.append(Caveat("unrecorded", text))
        tasks.append({**task, "caveats": [caveat.as_dict() for caveat in caveats]})
    return {**results, "tasks": tasks}


def add_row_caveats(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of ``checkpoints.json``, with caveats if its version had none."""
    if all("caveats" in task for task in row["tasks"].values()):
        return row
    old = {
        "tasks": [{"task": name, "data": {}, **task} for name, task in row["tasks"].items()],
        "warnings": row.get("warnings", []),
    }
    caveats = {task["task"]: task["caveats"] for task in add_caveats(old)["tasks"]}
    tasks = {name: {**task, "caveats": caveats[name]} for name, task in row["tasks"].items()}
    return {**row, "tasks": tasks}


def _read_note(note: str) -> Caveat:
    if match := re.match(r"ONLY THE FIRST (\d+) OF", note):
        return Caveat("limited", note, label=f"first{match[1]}")
    if note.startswith("SAMPLE TESTS ONLY"):
        return Caveat("upper_bound", note)
    return Caveat("data_note", note)
