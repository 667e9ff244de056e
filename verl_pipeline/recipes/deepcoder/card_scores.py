"""Scores of evaluations as a model card shows them.

Invariant: each score comes with every caveat of its evaluation, and one if it is not known to be of
the card's model.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.caveats import (
    Caveat,
    list_barring,
    mark_name,
    read_caveats,
    sort_caveats,
)
from verl_pipeline.evaluation.differences import HASH_CHARACTERS
from verl_pipeline.evaluation.results import read_results


def read_scores(folder: Path, weights: str | None) -> list[dict[str, Any]]:
    """One row a task of an evaluation.

    Args:
        folder: of ``verl-pipeline eval``.
        weights: the hash of the card's model; None: unknown.
    """
    results = read_results(folder)
    same_model = list(_check_weights(results["model"], weights))
    scores = []
    for task in results["tasks"]:
        caveats = sort_caveats([*same_model, *read_caveats(task)])
        scores.append(
            {
                "task": task["task"],
                "title": task["title"],
                "name": mark_name(task["title"], caveats),
                "pass@1": task["pass@1"],
                "mean_reward": task.get("mean_reward"),
                "problems": task["data"]["problems"],
                "samples": task["counts"]["samples"],
                "truncated": task["counts"]["truncated"],
                "sampling": task["sampling"],
                "published": task["published"],
                "caveats": caveats,
                "barring": list_barring(caveats),
            }
        )
    return scores


def _check_weights(evaluated: Mapping[str, Any], weights: str | None) -> Iterator[Caveat]:
    """Yield a caveat unless the evaluated weights are those of the card's model.

    Args:
        evaluated: the model of the evaluation.
        weights: the hash of the card's model; None: unknown.
    """
    # A published card has no local paths.
    name = Path(evaluated["name"]).name
    if not evaluated["weights"]:
        yield Caveat(
            "unknown_weights",
            f"the evaluation of {name} does not record its weights, so it is unknown whether they "
            "are this model's",
        )
    elif weights is None:
        yield Caveat(
            "unknown_weights",
            "the run's last checkpoint holds no whole model, so it is unknown whether the "
            f"evaluation of {name} is of this model; name its folder with --model",
        )
    elif weights != evaluated["weights"]:
        yield Caveat(
            "other_weights",
            f"the evaluation is of {name} with other weights (SHA-256 "
            f"{evaluated['weights'][:HASH_CHARACTERS]}...) than this model's "
            f"({weights[:HASH_CHARACTERS]}...)",
        )
