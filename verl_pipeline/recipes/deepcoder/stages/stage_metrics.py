"""The metrics of a stage, merged over all its attempts.

    <stage>/attempts/<n>/metrics.jsonl    file of verl's file logger, one per attempt
    <stage>/metrics.jsonl                 merged: ``{"step": k, "data": {...}}`` by step

Each attempt has a file of its own because verl's file logger empties its file when it starts.

Invariant: of a step that several attempts trained, the last attempt counts. Steps that were lost
because no checkpoint followed them are only in the file of their attempt.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from verl_pipeline.outputs.files import write_lines
from verl_pipeline.recipes.deepcoder.stages.run_state import StageAttempt
from verl_pipeline.recipes.deepcoder.stages.stage_config import MetricsByStep


def get_attempt_folder(stage: Path, number: int) -> Path:
    """Return the folder in which attempt ``number`` (from 1) of a stage writes."""
    return stage / "attempts" / str(number)


def merge_attempts(stage: Path, attempts: Iterable[StageAttempt]) -> MetricsByStep:
    """Return the metrics by step, in order.

    Args:
        stage: folder of the stage.
        attempts: its attempts in order.
    """
    merged: dict[int, dict[str, float]] = {}
    for attempt in attempts:
        merged = {step: data for step, data in merged.items() if step <= attempt.resumed_from}
        for step, data in _read_metrics(get_attempt_folder(stage, attempt.number)):
            # A validation before the first step is logged under the step before it.
            merged[step] = {**merged.get(step, {}), **data}
    return dict(sorted(merged.items()))


def write_merged_metrics(stage: Path, metrics: MetricsByStep) -> None:
    """Write ``metrics.jsonl`` of a stage by one rename."""
    write_lines(
        stage / "metrics.jsonl", ({"step": step, "data": data} for step, data in metrics.items())
    )


def _read_metrics(attempt_folder: Path) -> list[tuple[int, dict[str, float]]]:
    """Read the lines of one attempt, without an incomplete last line."""
    path = attempt_folder / "metrics.jsonl"
    if not path.is_file():
        return []
    records = map(json.loads, path.read_text().split("\n")[:-1])
    return [(record["step"], record["data"]) for record in records]
