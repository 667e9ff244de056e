"""A Codeforces rating by CodeElo's method (Quan et al. 2025, arXiv 2501.01257, section 3).

For each contest, a model's samples count as its attempts, in order, until one is accepted; the
points that gives (less a penalty for each failed attempt) are ranked among the humans' of that
contest; the contest's rating is the one for which Elo's model expects that rank; the rating is the
mean over contests.

The standings are those of Codeforces' own API, as files
``codeforces_contests/<contest>.standings.json`` (of ``contest.standings``) and
``<contest>.ratingChanges.json`` (of ``contest.ratingChanges``) in the folder of local data.

Invariant: a contest without standings is not rated, and the note says how many were.
"""

import collections
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.data import DataNotFound, Finder
from verl_pipeline.evaluation.estimators import mean_interval

# Of a failed attempt: points where problems have points, minutes of penalty where they count as one
# each.
FAILED_POINTS, FAILED_MINUTES = 50, 10
FOLDER = "codeforces_contests"
_HOW = (
    f"put {FOLDER}/<contest>.standings.json and {FOLDER}/<contest>.ratingChanges.json (answers of "
    "Codeforces' API methods contest.standings and contest.ratingChanges) into the folder named "
    "by --data"
)


def rate(finder: Finder, rewards: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The rating, its interval over contests, and what it rests on.

    Args:
        finder: where the standings are.
        rewards: of the samples of each problem (``2000A``), in order.

    Raises:
        DataNotFound: no contest can be rated.
    """
    contests: dict[str, dict[str, Sequence[float]]] = collections.defaultdict(dict)
    for name, attempts in rewards.items():
        if match := re.fullmatch(r"(\d+)([A-Z]\d?)", name):
            contests[match[1]][match[2]] = attempts
    if not contests:
        raise DataNotFound(
            "no rating: the problems have no ids like 2000A, so their contests are unknown"
        )
    folder = (finder.local() or Path()) / FOLDER
    ratings = [
        contest_rating(*found, attempts)
        for contest, attempts in sorted(contests.items())
        if (found := _standings(folder, contest))
    ]
    if not ratings:
        raise DataNotFound(f"no rating: no standings of the {len(contests)} contests: {_HOW}")
    note = f"{len(ratings)} of {len(contests)} contests; problems not evaluated count as not solved"
    return {**mean_interval(ratings).as_dict(), "contests": len(ratings), "note": note}


def contest_rating(
    standings: Mapping[str, Any],
    changes: Sequence[Mapping[str, Any]],
    attempts: Mapping[str, Sequence[float]],
) -> float:
    """The rating that expects the rank which ``attempts`` (by the problem's index) reach in one
    contest.
    """
    points = penalty = 0.0
    for problem in standings["problems"]:
        tried = list(attempts.get(problem["index"], ()))
        if 1.0 not in tried:
            continue
        failed = tried.index(1.0)
        if "points" in problem:
            points += max(0.0, problem["points"] - FAILED_POINTS * failed)
        else:
            points, penalty = points + 1, penalty + FAILED_MINUTES * failed
    better = sum(
        (-row["points"], row.get("penalty", 0)) < (-points, penalty) for row in standings["rows"]
    )
    return expected_rating(better + 1, [change["oldRating"] for change in changes])


def expected_rating(rank: float, ratings: Sequence[float]) -> float:
    """The r whose expected rank 1 + sum of 1 / (1 + 10^((r - r_i) / 400)) is ``rank``; between 0
    and 4000.
    """
    low, high = 0.0, 4000.0
    for _ in range(50):
        middle = (low + high) / 2
        seed = 1 + sum(1 / (1 + 10 ** ((middle - other) / 400)) for other in ratings)
        low, high = (low, middle) if seed < rank else (middle, high)
    return low


def _standings(folder: Path, contest: str) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    files = [folder / f"{contest}.{kind}.json" for kind in ("standings", "ratingChanges")]
    if not all(file.is_file() for file in files):
        return None
    try:
        standings, changes = (json.loads(file.read_text())["result"] for file in files)
        fields = (standings["problems"], [row["points"] for row in standings["rows"]])
        ratings = [change["oldRating"] for change in changes]
    except (ValueError, KeyError, TypeError) as error:
        raise DataNotFound(
            f"no rating: {files[0]}, {files[1].name}: no answers of Codeforces' API ({error!r})"
        ) from error
    return (standings, changes) if ratings and all(fields) else None
