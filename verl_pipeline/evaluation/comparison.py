"""Compares two evaluations on their common problems.

Invariants:
* Evaluations on different data are refused; all other differences are reported: those of settings
  in the notes, those that make the scores two different measures in ``not_comparable``.
* The caveats of both sides are part of the result.
* The interval is that of the paired difference, problem by problem. Whether two separate intervals
  overlap says little about the difference.
"""

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from verl_pipeline.errors import UserError
from verl_pipeline.evaluation import graded_samples
from verl_pipeline.evaluation.caveats import (
    Caveat,
    list_barring,
    mark_name,
    read_caveats,
)
from verl_pipeline.evaluation.differences import list_differences
from verl_pipeline.evaluation.estimators import estimate_difference, estimate_mean
from verl_pipeline.evaluation.graded_samples import GradedSamples
from verl_pipeline.evaluation.recorded_files import read_records
from verl_pipeline.evaluation.results import read_results
from verl_pipeline.evaluation.store import SAMPLE, VERDICT

SIDES = ("before", "after")
# Settings that may differ: the difference is then theirs as well as the model's.
_SETTINGS = ("engine", "sampling", "style", "options", "system")
# What decides whether a sample counts as correct.
_MEASURES = ("grader", "tier")


class ComparisonError(UserError):
    """The two evaluations have no common task, data or problem."""


def compare_folders(before: Path, after: Path) -> list[dict[str, Any]]:
    """Return one row per common task.

    A row has the ``measure``, ``pass@1``, or ``mean reward`` if not all rewards are 0 or 1; its
    mean gain with its interval (``value``, ``low``, ``high``), both means (``before``, ``after``),
    the number of ``better`` and ``worse`` problems, the task's ``name`` with the marks of both
    sides, ``not_comparable``: reasons why the two scores measure different things, ``notes``: what
    else differs, and the ``caveats`` of each side.

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
        sides = " and ".join(
            f"{folder / 'results.json'} ({', '.join(own)})"
            for folder, own in zip((before, after), tasks, strict=True)
        )
        raise ComparisonError(f"no task in common: {sides}")
    return [_compare_task(name, tasks[0][name], tasks[1][name], before, after) for name in common]


def _compare_task(
    name: str, first: dict, second: dict, before: Path, after: Path
) -> dict[str, Any]:
    caveats = [read_caveats(first), read_caveats(second)]
    if first["data"]["sha256"] != second["data"]["sha256"]:
        sides = " and ".join(
            f"{folder / 'results.json'} has {side['data']['problems']} problems of "
            f"{side['data']['origin']} ({mark_name(name, own)})"
            for folder, side, own in zip((before, after), (first, second), caveats, strict=True)
        )
        differing = _list_setting_differences(first, second, ("options", "system"))
        raise ComparisonError(
            f"{name}: problems, prompts or tests differ: {sides}"
            + (f" ({'; '.join(differing)})" if differing else "")
            + "; evaluate both with the same data, limit, system and options"
        )
    samples = [
        _read_samples(folder / name, result["sampling"]["n"])
        for folder, result in ((before, first), (after, second))
    ]
    is_binary = all(map(graded_samples.is_binary, samples))
    group = graded_samples.group_rewards if is_binary else graded_samples.group_training_rewards
    means = [
        {problem: statistics.fmean(rewards) for problem, rewards in group(graded).items()}
        for graded in samples
    ]
    common = means[0].keys() & means[1].keys()
    for side, graded in zip((before, after), samples, strict=True):
        if not graded:
            files = [str(side / name / file) for file in ("samples.jsonl", "verdicts.jsonl")]
            raise ComparisonError(f"{' and '.join(files)} hold no graded sample; evaluate again")
    if not common:
        raise ComparisonError(f"{name}: no problem has samples in both evaluations")
    gains = [means[1][problem] - means[0][problem] for problem in common]
    notes = _list_setting_differences(first, second, _SETTINGS)
    if missing := len(means[0].keys() | means[1].keys()) - len(common):
        notes.append(f"{missing} problems have samples in only one evaluation and are left out")
    samples_per_problem = min(first["sampling"]["n"], second["sampling"]["n"])
    return {
        "task": name,
        "name": mark_name(name, [caveat for own in caveats for caveat in own]),
        "measure": "pass@1" if is_binary else "mean reward",
        "problems": len(common),
        "before": statistics.fmean(means[0][problem] for problem in common),
        "after": statistics.fmean(means[1][problem] for problem in common),
        **(
            estimate_difference(means[0], means[1], samples_per_problem)
            if is_binary
            else estimate_mean(gains)
        ).as_dict(),
        "better": sum(gain > 0 for gain in gains),
        "worse": sum(gain < 0 for gain in gains),
        "not_comparable": [
            *_list_setting_differences(first, second, _MEASURES),
            *_list_one_sided(caveats),
        ],
        "notes": notes,
        "caveats": {
            side: [caveat.as_dict() for caveat in own]
            for side, own in zip(SIDES, caveats, strict=True)
        },
    }


def _list_setting_differences(
    first: Mapping[str, Any], second: Mapping[str, Any], fields: tuple[str, ...]
) -> list[str]:
    """Return how two tasks differ in these fields; results of an earlier version lack some."""
    known = [field for field in fields if field in first and field in second]
    sides = [{field: task[field] for field in known} for task in (first, second)]
    return list_differences(sides[0], sides[1], SIDES)


def _list_one_sided(caveats: list[list[Caveat]]) -> Iterator[str]:
    """Yield the marks that only one of the two scores has."""
    marks = [{caveat.label or caveat.kind for caveat in list_barring(own)} for own in caveats]
    for side, own, other in zip(SIDES, caveats, reversed(marks), strict=True):
        for caveat in list_barring(own):
            if (caveat.label or caveat.kind) not in other:
                yield f"only the score {side}: {caveat.text}"


def _read_samples(folder: Path, n: int) -> GradedSamples:
    """Return the first ``n`` samples of each problem."""
    rows = read_records(folder / "verdicts.jsonl", VERDICT)
    verdicts = {(row["id"], row["sample"]): row for row in rows}
    samples = (row for row in read_records(folder / "samples.jsonl", SAMPLE) if row["sample"] < n)
    return graded_samples.join_verdicts(samples, verdicts)
