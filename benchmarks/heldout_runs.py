"""Trainings whose held-out scores are compared: how runs are resumed, and scores averaged.

Invariant: a report is continued only by the command that began it, with the same arguments.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_pipeline.quickstart.summary import read_scores


def read_earlier_runs(output: Path, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The runs of a report that the same arguments wrote; none if there is no such report."""
    if not output.is_file():
        return []
    report = json.loads(output.read_text())
    if report["arguments"] != arguments:
        return []
    return report["results"]["runs"]


def average_by_problem(path: Path) -> dict[str, float]:
    """Mean score by problem of one of verl's validation dumps."""
    return {name: statistics.fmean(values) for name, values in read_scores(path).items()}


def average_over_runs(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over runs, by problem."""
    return {name: statistics.fmean(run[name] for run in scores) for name in scores[0]}
