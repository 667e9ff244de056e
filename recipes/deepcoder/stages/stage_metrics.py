"""The metrics of a stage, of all its attempts together.

    <stage>/attempts/<n>/metrics.jsonl    of verl's file logger, which empties its file when it
    starts <stage>/metrics.jsonl                 the same, merged: ``{"step": k, "data": {...}}`` by
    step

Invariant: a step's metrics are those of the attempt that the later ones go on from. Steps that an
attempt trained and that were lost with it are in its own file only.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from recipes.deepcoder.stages.run_state import Attempt
from verl_pipeline.evaluation.store import write_lines

Metrics = dict[int, dict[str, float]]


def attempt_folder(stage: Path, number: int) -> Path:
    """Where attempt ``number`` (from 1) of a stage writes log and metrics."""
    return stage / "attempts" / str(number)


def merged(stage: Path, attempts: Iterable[Attempt]) -> Metrics:
    """Metrics by step, in order."""
    found: Metrics = {}
    for attempt in attempts:
        found = {step: data for step, data in found.items() if step <= attempt.resumed_from}
        for step, data in _read(attempt_folder(stage, attempt.number) / "metrics.jsonl"):
            # A validation before the first step is logged under the step before.
            found[step] = {**found.get(step, {}), **data}
    return dict(sorted(found.items()))


def write_merged(stage: Path, metrics: Metrics) -> None:
    """Write ``metrics.jsonl`` atomically."""
    write_lines(
        stage / "metrics.jsonl", ({"step": step, "data": data} for step, data in metrics.items())
    )


def _read(path: Path) -> list[tuple[int, dict[str, float]]]:
    """verl's lines; one that is still being written, or that a kill cut off, is left out."""
    if not path.is_file():
        return []
    records = map(json.loads, path.read_text().split("\n")[:-1])
    return [(record["step"], record["data"]) for record in records]
