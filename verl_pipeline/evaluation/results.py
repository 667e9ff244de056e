"""``results.json``: the whole result of an evaluation, in one versioned schema.

Top level: ``schema``, ``model`` (with the weights' hash), ``engine`` (how it generated), ``seed``,
``versions``, ``machine``, ``started`` and ``finished`` (UTC), ``warnings``, ``tasks``. Of each
task: ``task``, ``title``, ``split``, ``grader``, ``tier``, ``data`` (origin, SHA-256, problems, bad
rows, notes, seen in training), ``options``, ``style``, ``sampling``, ``counts``, ``verdicts``,
``tokens``, the scores of :func:`verl_pipeline.evaluation.scores.scores`, ``rating``, ``refinement``
and ``published``. An estimate is ``{"value", "low", "high"}``: fractions, 95 % intervals.

Invariants:
* Whatever limits what a score says is in ``warnings`` or in the task's ``data.notes``; both are
  printed.
* A file of another schema is refused, never guessed at.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.config import EvalConfig
from verl_pipeline.evaluation.errors import Refused
from verl_pipeline.evaluation.task import Loaded, Sampling, Task

SCHEMA = 1
# Exit code of `verl-pipeline eval` if samples are missing or were not graded.
INCOMPLETE = 3


class NoResults(Refused):
    """No results in a folder, or of another schema."""


def read_results(folder: Path) -> dict[str, Any]:
    """The results in a folder.

    Raises:
        NoResults: there are none, or of another schema.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise NoResults(f"{folder}: no results.json (has the evaluation ended?)")
    try:
        results = json.loads(path.read_text())
        schema = results["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise NoResults(
            f"{path}: no results of an evaluation ({error!r}); evaluate again"
        ) from error
    if schema != SCHEMA:
        raise NoResults(f"{path}: schema {schema}, {SCHEMA} is read here; evaluate again")
    return results


def warnings_of(
    config: EvalConfig, task: Task, sampling: Sampling, result: dict[str, Any]
) -> list[str]:
    """What a reader of one task's scores must know."""
    counts, found = result["counts"], []
    if task.split == "test" and config.purpose == "choose":
        found.append(
            f"{task.name}: CHOSEN ON A TEST SET: checkpoints were compared on a split that is "
            "reported; the score of the chosen one is biased upwards. A validation split: "
            "mbpp_validation, or parquet with data.val_files"
        )
    if "rlimits" in result["tier"]:
        found.append(
            f"{task.name}: programs ran in the DEGRADED tier rlimits: nothing but limits kept them "
            "apart"
        )
    if counts["failed"]:
        found.append(
            f"{task.name}: the generation of {counts['failed']} of {counts['expected']} samples "
            "failed; they are left out, and asked for again by the next call (failures.jsonl says "
            "why)"
        )
    if counts["infrastructure"]:
        found.append(
            f"{task.name}: {counts['infrastructure']} samples could not be graded and do not count"
        )
    if result["data"]["bad_rows"]:
        found.append(
            f"{task.name}: {len(result['data']['bad_rows'])} rows of the data could not be read"
        )
    if result["data"]["seen_in_training"]:
        number = len(result["data"]["seen_in_training"])
        found.append(
            f"{task.name}: {number} of {counts['problems']} problems are in the training data"
        )
    second = result["refinement"]
    if second and second["failed"] + second["infrastructure"]:
        found.append(
            f"{task.name}: {second['failed']} samples of the second round failed, "
            f"{second['infrastructure']} could not be graded; they have no vote"
        )
    if result["problems_without_samples"]:
        found.append(
            f"{task.name}: {result['problems_without_samples']} problems have no sample that "
            "counts; the scores are those of the others"
        )
    trained = config.engine.trained_length
    if trained and sampling.max_tokens > trained:
        found.append(
            f"{task.name}: responses of up to {sampling.max_tokens} tokens, "
            f"{sampling.max_tokens / trained:.3g} times the {trained} of the training"
        )
    return found


def describe(
    config: EvalConfig, task: Task, loaded: Loaded, sampling: Sampling, seen: Sequence[str]
) -> dict[str, Any]:
    """What was asked, as far as it is known before the first answer."""
    return {
        "task": task.name,
        "title": task.title,
        "split": task.split,
        "grader": " and ".join(
            sorted({"code" if item.problem else "math" for item in loaded.items})
        ),
        "data": {
            "origin": loaded.origin,
            "sha256": loaded.digest,
            "problems": len(loaded.items),
            "bad_rows": loaded.bad_rows,
            "notes": loaded.notes,
            "seen_in_training": list(seen),
        },
        "options": options_of(config, task),
        "style": config.style,
        "sampling": dataclasses.asdict(sampling),
        "published": [dataclasses.asdict(row) for row in task.published],
    }


def options_of(config: EvalConfig, task: Task) -> dict[str, Any]:
    """The task's options: its own, and what the settings change of them."""
    return {**task.options, **(config.options.get(task.name) or {})}
