"""Schema of ``results.json``, the result of an evaluation.

Top level: ``schema``, ``model`` (with the hash of the weights), ``engine`` (its settings),
``seed``, ``versions``, ``machine``, ``started`` and ``finished`` (UTC), ``tasks``.
Each task: ``task``, ``title``, ``split``, ``grader``, ``tier``, ``caveats``
(:mod:`verl_pipeline.evaluation.caveats`), ``data`` (origin, SHA-256, problems, bad rows, problems
that are in the training data), ``options``, ``style``, ``system``, ``sampling``, ``counts``,
``verdicts``, ``answers`` (:func:`verl_pipeline.evaluation.missing_answers.count_answers`),
``tokens``, the scores of
:func:`verl_pipeline.evaluation.scores.estimate_scores`, ``rating`` (or the reason in
``rating_missing``), ``behaviours`` (counts of
:func:`verl_pipeline.evaluation.behaviours.add_behaviours`), ``refinement`` and ``published``. An
estimate is ``{"value", "low", "high"}``: a fraction and its 95 % interval.

Invariants:
* Every limit of a score is in the task's ``caveats``.
* Results without caveats (schema 1) are read, and each of their scores has a caveat that says so.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verl_pipeline.errors import UserError, show_line
from verl_pipeline.evaluation.eval_settings import EvalConfig
from verl_pipeline.evaluation.old_results import SCHEMA_WITHOUT_CAVEATS, add_caveats
from verl_pipeline.evaluation.recorded_files import check_shape, read_record
from verl_pipeline.evaluation.recorded_results import OLD_RESULTS, RESULTS, VERSION
from verl_pipeline.evaluation.task import SamplingParameters, Task, TaskData

SCHEMA_VERSION = 2
# Exit code of `verl-pipeline eval` if samples are missing or ungraded.
EXIT_INCOMPLETE = 3
_ADVICE = "evaluate again"


class ResultsError(UserError):
    """A folder has no results, or results with another schema version."""


def read_results(folder: Path) -> dict[str, Any]:
    """Return the content of ``folder/results.json``.

    Raises:
        ResultsError: the file is missing, or has another schema version.
        InputError: it cannot be read.
        DamagedFileError: it is not the results of an evaluation.
    """
    path = folder / "results.json"
    if os.path.isfile(folder):
        raise ResultsError(f"{folder}: a file; name the output folder of an evaluation")
    if not os.path.exists(path):
        raise ResultsError(f"{path}: no such file; let the evaluation finish first")
    results = read_record(path, _ADVICE)
    check_shape(results, VERSION, str(path), _ADVICE)
    schema = results["schema"]
    if schema == SCHEMA_WITHOUT_CAVEATS:
        check_shape(results, OLD_RESULTS, str(path), _ADVICE)
        return add_caveats(results)
    if schema != SCHEMA_VERSION:
        raise ResultsError(
            f"{path}: schema {show_line(str(schema))}, expected {SCHEMA_VERSION}; {_ADVICE}"
        )
    check_shape(results, RESULTS, str(path), _ADVICE)
    return results


def describe_task(
    config: EvalConfig,
    task: Task,
    data: TaskData,
    sampling: SamplingParameters,
    contaminated_ids: Sequence[str],
) -> dict[str, Any]:
    """Return the part of a task's results that is known before generation."""
    return {
        "task": task.name,
        "title": task.title,
        "split": task.split,
        "grader": " and ".join(sorted({item.grader for item in data.items})),
        "data": {
            "origin": data.origin,
            "sha256": data.digest,
            "problems": len(data.items),
            "bad_rows": data.bad_rows,
            "seen_in_training": list(contaminated_ids),
        },
        "options": merge_options(config, task),
        "style": config.style,
        "system": config.system,
        "sampling": dataclasses.asdict(sampling),
        "published": [dataclasses.asdict(row) for row in task.published],
    }


def merge_options(config: EvalConfig, task: Task) -> dict[str, Any]:
    """Return the task's default options, overridden by the settings."""
    return {**task.options, **(config.options.get(task.name) or {})}
