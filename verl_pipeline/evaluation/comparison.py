"""Compares two evaluations on their common problems.

Invariants:
* Evaluations on different data are refused; differences in engine, sampling, style or tier are
  reported in the notes.
* The interval is that of the paired difference, problem by problem. Whether two separate intervals
  overlap says little about the difference.
"""

import statistics
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation import graded_samples
from verl_pipeline.evaluation.errors import UserError
from verl_pipeline.evaluation.estimators import estimate_difference
from verl_pipeline.evaluation.results import read_results
from verl_pipeline.evaluation.store import read_lines


class ComparisonError(UserError):
    """The two evaluations have no common task, data or problem."""


def compare_folders(before: Path, after: Path) -> list[dict[str, Any]]:
    """Return one row per common task.

    A row has the mean gain in pass@1 with its interval (``value``, ``low``, ``high``), both means
    (``before``, ``after``), the number of ``better`` and ``worse`` problems, and ``notes``.

    Raises:
        ComparisonError: no common task or problem, or the data differs.
        ResultsError: a folder has no results.
    """
    both = [read_results(folder) for folder in (before, after)]
    tasks = [
        {task["task"]: task | {"engine": results["engine"]} for task in results["tasks"]}
        for results in both
    ]
    common = [name for name in tasks[0] if name in tasks[1]]
    if not common:
        raise ComparisonError(f"no task in common: {', '.join(tasks[0])} and {', '.join(tasks[1])}")
    return [_compare_task(name, tasks[0][name], tasks[1][name], before, after) for name in common]


def _compare_task(
    name: str, first: dict, second: dict, before: Path, after: Path
) -> dict[str, Any]:
    if first["data"]["sha256"] != second["data"]["sha256"]:
        sides = " and ".join(
            f"{side['data']['problems']} problems of {side['data']['origin']}"
            for side in (first, second)
        )
        raise ComparisonError(
            f"{name}: {sides}: problems, prompts or tests differ; evaluate both with the same "
            "data, limit, system and options"
        )
    means = [
        _read_problem_means(folder / name, result["sampling"]["n"])
        for folder, result in ((before, first), (after, second))
    ]
    common = means[0].keys() & means[1].keys()
    if not common:
        raise ComparisonError(f"{name}: no problem has samples in both evaluations")
    gains = [means[1][problem] - means[0][problem] for problem in common]
    notes = [
        f"{field}: {first[field]} before, {second[field]} after"
        for field in ("engine", "sampling", "style", "tier")
        if first[field] != second[field]
    ]
    if missing := len(means[0].keys() | means[1].keys()) - len(common):
        notes.append(f"{missing} problems have samples in only one evaluation and are left out")
    for side, result in (("before", first), ("after", second)):
        if lost := result["counts"]["failed"] + result["counts"]["infrastructure"]:
            notes.append(f"{lost} samples are missing {side}")
    samples_per_problem = min(first["sampling"]["n"], second["sampling"]["n"])
    return {
        "task": name,
        "problems": len(common),
        "before": statistics.fmean(means[0][problem] for problem in common),
        "after": statistics.fmean(means[1][problem] for problem in common),
        **estimate_difference(means[0], means[1], samples_per_problem).as_dict(),
        "better": sum(gain > 0 for gain in gains),
        "worse": sum(gain < 0 for gain in gains),
        "notes": notes,
    }


def _read_problem_means(folder: Path, n: int) -> dict[str, float]:
    """Return the mean reward by problem, over its first ``n`` samples."""
    verdicts = {(row["id"], row["sample"]): row for row in read_lines(folder / "verdicts.jsonl")}
    samples = (row for row in read_lines(folder / "samples.jsonl") if row["sample"] < n)
    rewards_by_problem = graded_samples.group_rewards(
        graded_samples.join_verdicts(samples, verdicts)
    )
    return {problem: statistics.fmean(rewards) for problem, rewards in rewards_by_problem.items()}
