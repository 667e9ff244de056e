"""Schema of ``results.json``, the result of an evaluation.

Top level: ``schema``, ``model`` (with the hash of the weights), ``engine`` (its settings),
``seed``, ``versions``, ``machine``, ``started`` and ``finished`` (UTC), ``warnings``, ``tasks``.
Each task: ``task``, ``title``, ``split``, ``grader``, ``tier``, ``data`` (origin, SHA-256,
problems, bad rows, notes, problems that are in the training data), ``options``, ``style``,
``sampling``, ``counts``, ``verdicts``, ``tokens``, the scores of
:func:`verl_pipeline.evaluation.scores.estimate_scores`, ``rating``, ``refinement`` and
``published``. An estimate is ``{"value", "low", "high"}``: a fraction and its 95 % interval.

Invariants:
* Every limit of a score is in ``warnings`` or in the task's ``data.notes``; both are printed.
* A file with another schema version is refused.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.errors import UserError
from verl_pipeline.evaluation.eval_settings import EvalConfig
from verl_pipeline.evaluation.task import SamplingParameters, Task, TaskData

SCHEMA_VERSION = 1
# Exit code of `verl-pipeline eval` if samples are missing or ungraded.
EXIT_INCOMPLETE = 3


class ResultsError(UserError):
    """A folder has no results, or results with another schema version."""


def read_results(folder: Path) -> dict[str, Any]:
    """Return the content of ``folder/results.json``.

    Raises:
        ResultsError: the file is missing, damaged, or has another schema version.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise ResultsError(f"{folder}: no results.json; let the evaluation finish first")
    try:
        results = json.loads(path.read_text())
        schema = results["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise ResultsError(
            f"{path}: not the results of an evaluation ({error!r}); evaluate again"
        ) from error
    if schema != SCHEMA_VERSION:
        raise ResultsError(f"{path}: schema {schema}, expected {SCHEMA_VERSION}; evaluate again")
    return results


def list_warnings(
    config: EvalConfig, task: Task, sampling: SamplingParameters, result: dict[str, Any]
) -> list[str]:
    """Return the warnings that belong to the scores of one task.

    Args:
        result: the task's entry for ``results.json``.
    """
    counts, warnings = result["counts"], []
    if task.split == "test" and config.purpose == "choose":
        warnings.append(
            f"{task.name}: CHOSEN ON A TEST SET: checkpoints are compared on a test split, so the "
            "score of the best one is biased upwards; choose on a validation split instead: "
            "mbpp_validation, or parquet with data.val_files"
        )
    if "rlimits" in result["tier"]:
        warnings.append(
            f"{task.name}: programs ran in the DEGRADED tier rlimits: resource limits only, no "
            "isolation"
        )
    if counts["failed"]:
        warnings.append(
            f"{task.name}: the generation of {counts['failed']} of {counts['expected']} samples "
            "failed (reasons: failures.jsonl); they are left out, and the next call repeats them"
        )
    if counts["infrastructure"]:
        warnings.append(
            f"{task.name}: {counts['infrastructure']} samples could not be graded; they are left "
            "out, and the next call grades them again"
        )
    if result["data"]["bad_rows"]:
        warnings.append(
            f"{task.name}: {len(result['data']['bad_rows'])} rows of the data could not be read "
            "(reasons: data.bad_rows)"
        )
    if result["data"]["seen_in_training"]:
        number = len(result["data"]["seen_in_training"])
        warnings.append(
            f"{task.name}: {number} of {counts['problems']} problems are in the training data"
        )
    second = result["refinement"]
    if second and second["failed"] + second["infrastructure"]:
        warnings.append(
            f"{task.name}: {second['failed']} samples of the second round failed, "
            f"{second['infrastructure']} could not be graded; they do not vote"
        )
    if result["problems_without_samples"]:
        warnings.append(
            f"{task.name}: {result['problems_without_samples']} problems have no graded sample; "
            "the scores leave them out"
        )
    trained = config.engine.trained_length
    if trained and sampling.max_tokens > trained:
        warnings.append(
            f"{task.name}: responses of up to {sampling.max_tokens} tokens, "
            f"{sampling.max_tokens / trained:.3g} times the training's {trained}"
        )
    return warnings


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
        "grader": " and ".join(sorted({"code" if item.problem else "math" for item in data.items})),
        "data": {
            "origin": data.origin,
            "sha256": data.digest,
            "problems": len(data.items),
            "bad_rows": data.bad_rows,
            "notes": data.notes,
            "seen_in_training": list(contaminated_ids),
        },
        "options": merge_options(config, task),
        "style": config.style,
        "sampling": dataclasses.asdict(sampling),
        "published": [dataclasses.asdict(row) for row in task.published],
    }


def merge_options(config: EvalConfig, task: Task) -> dict[str, Any]:
    """Return the task's default options, overridden by the settings."""
    return {**task.options, **(config.options.get(task.name) or {})}
