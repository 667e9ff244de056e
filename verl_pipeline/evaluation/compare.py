"""Compares two evaluations on the problems they share.

Invariants:
* Only the same data and the same way of asking are compared; anything else is refused, or noted
  where it is harmless.
* The interval is that of the difference, problem by problem: two intervals that overlap say little
  of it.
"""

import statistics
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation import scores
from verl_pipeline.evaluation.errors import Refused
from verl_pipeline.evaluation.estimators import difference_interval
from verl_pipeline.evaluation.results import read_results
from verl_pipeline.evaluation.store import read_lines


class NotComparable(Refused):
    """The two evaluations did not ask the same."""


def compare_folders(before: Path, after: Path) -> list[dict[str, Any]]:
    """A row for each task that both have: the mean gain in pass@1 and its interval, and how many
    problems changed.

    Raises:
        NotComparable: no common task, or other data.
        NoResults: a folder without results.
    """
    both = [read_results(folder) for folder in (before, after)]
    tasks = [
        {task["task"]: task | {"engine": results["engine"]} for task in results["tasks"]}
        for results in both
    ]
    shared = [name for name in tasks[0] if name in tasks[1]]
    if not shared:
        raise NotComparable(f"no task in common: {', '.join(tasks[0])} and {', '.join(tasks[1])}")
    return [_compare(name, tasks[0][name], tasks[1][name], before, after) for name in shared]


def _compare(name: str, first: dict, second: dict, before: Path, after: Path) -> dict[str, Any]:
    if first["data"]["sha256"] != second["data"]["sha256"]:
        sides = " and ".join(
            f"{side['data']['problems']} problems of {side['data']['origin']}"
            for side in (first, second)
        )
        raise NotComparable(
            f"{name}: {sides}: problems, prompts or tests differ (limit, system and options change "
            "them); evaluate both in the same way"
        )
    means = [
        _means(folder / name, result["sampling"]["n"])
        for folder, result in ((before, first), (after, second))
    ]
    common = means[0].keys() & means[1].keys()
    if not common:
        raise NotComparable(f"{name}: no problem that both have samples of")
    gains = [means[1][problem] - means[0][problem] for problem in common]
    notes = [
        f"{field}: {first[field]} before, {second[field]} after"
        for field in ("engine", "sampling", "style", "tier")
        if first[field] != second[field]
    ]
    if missing := len(means[0].keys() | means[1].keys()) - len(common):
        notes.append(f"{missing} problems have samples on one side only and are left out")
    for which, result in (("before", first), ("after", second)):
        if lost := result["counts"]["failed"] + result["counts"]["infrastructure"]:
            notes.append(f"{lost} samples are missing {which}")
    each = min(first["sampling"]["n"], second["sampling"]["n"])
    return {
        "task": name,
        "problems": len(common),
        "before": statistics.fmean(means[0][problem] for problem in common),
        "after": statistics.fmean(means[1][problem] for problem in common),
        **difference_interval(means[0], means[1], each).as_dict(),
        "better": sum(gain > 0 for gain in gains),
        "worse": sum(gain < 0 for gain in gains),
        "notes": notes,
    }


def _means(folder: Path, n: int) -> dict[str, float]:
    verdicts = {(row["id"], row["sample"]): row for row in read_lines(folder / "verdicts.jsonl")}
    samples = (row for row in read_lines(folder / "samples.jsonl") if row["sample"] < n)
    graded = scores.join(samples, verdicts)
    return {
        problem: statistics.fmean(rewards) for problem, rewards in scores.rewards_of(graded).items()
    }
