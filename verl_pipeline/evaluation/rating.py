"""A Codeforces rating by CodeElo's method (Quan et al. 2025, arXiv 2501.01257, section 3).

The samples of a problem count as attempts, in order, until one is accepted. The points of a contest
(less a penalty per failed attempt) are ranked among those of its human participants. The rating of
the contest is the one for which Elo's model expects that rank; the result is the mean over
contests.

The standings come from Codeforces' API, as files ``codeforces_contests/<contest>.standings.json``
(method ``contest.standings``) and ``<contest>.ratingChanges.json`` (``contest.ratingChanges``) in
the folder of local data.

Invariant: a contest without standings is not rated; the note says how many contests were rated.
"""

import collections
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.data import DataFinder, DataNotFound
from verl_pipeline.evaluation.estimators import estimate_mean

# Penalty per failed attempt: in points if the contest's problems have points, else in minutes.
FAILED_ATTEMPT_POINTS, FAILED_ATTEMPT_MINUTES = 50, 10
STANDINGS_FOLDER = "codeforces_contests"
_ADVICE = (
    f"put {STANDINGS_FOLDER}/<contest>.standings.json and "
    f"{STANDINGS_FOLDER}/<contest>.ratingChanges.json (responses of Codeforces' API methods "
    "contest.standings and contest.ratingChanges) into the folder named by --data"
)


def estimate_rating(finder: DataFinder, rewards: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return the rating with its interval over contests, the number of contests, and a note.

    Args:
        finder: finds the standings.
        rewards: rewards of the samples of each problem, in order, by problem id (``2000A``).

    Raises:
        DataNotFound: no contest can be rated.
    """
    contests: dict[str, dict[str, Sequence[float]]] = collections.defaultdict(dict)
    for name, attempts in rewards.items():
        if match := re.fullmatch(r"(\d+)([A-Z]\d?)", name):
            contests[match[1]][match[2]] = attempts
    if not contests:
        raise DataNotFound(
            "no rating: the problems have no ids like 2000A, which name their contests; use the "
            "hub's rows"
        )
    folder = (finder.find_local_folder() or Path()) / STANDINGS_FOLDER
    ratings = [
        compute_contest_rating(*responses, attempts)
        for contest, attempts in sorted(contests.items())
        if (responses := _read_standings(folder, contest))
    ]
    if not ratings:
        raise DataNotFound(f"no rating: no standings of the {len(contests)} contests; {_ADVICE}")
    note = f"{len(ratings)} of {len(contests)} contests; problems not evaluated count as unsolved"
    return {**estimate_mean(ratings).as_dict(), "contests": len(ratings), "note": note}


def compute_contest_rating(
    standings: Mapping[str, Any],
    changes: Sequence[Mapping[str, Any]],
    attempts: Mapping[str, Sequence[float]],
) -> float:
    """Return the rating for which Elo's model expects the rank reached in one contest.

    Args:
        standings, changes: responses of Codeforces' API.
        attempts: rewards of the samples, in order, by the problem's index in the contest.
    """
    points = penalty = 0.0
    for problem in standings["problems"]:
        rewards = list(attempts.get(problem["index"], ()))
        if 1.0 not in rewards:
            continue
        failed = rewards.index(1.0)
        if "points" in problem:
            points += max(0.0, problem["points"] - FAILED_ATTEMPT_POINTS * failed)
        else:
            points, penalty = points + 1, penalty + FAILED_ATTEMPT_MINUTES * failed
    better = sum(
        (-row["points"], row.get("penalty", 0)) < (-points, penalty) for row in standings["rows"]
    )
    return solve_rating(better + 1, [change["oldRating"] for change in changes])


def solve_rating(rank: float, ratings: Sequence[float]) -> float:
    """Return the rating r, between 0 and 4000, whose expected rank is ``rank``.

    The expected rank is 1 + sum of 1 / (1 + 10^((r - r_i) / 400)) over the ratings r_i.
    """
    low, high = 0.0, 4000.0
    for _ in range(50):
        middle = (low + high) / 2
        expected_rank = 1 + sum(1 / (1 + 10 ** ((middle - other) / 400)) for other in ratings)
        low, high = (low, middle) if expected_rank < rank else (middle, high)
    return low


def _read_standings(
    folder: Path, contest: str
) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """Return standings and rating changes of a contest; None if they are missing or empty."""
    files = [folder / f"{contest}.{kind}.json" for kind in ("standings", "ratingChanges")]
    if not all(file.is_file() for file in files):
        return None
    try:
        standings, changes = (json.loads(file.read_text())["result"] for file in files)
        fields = (standings["problems"], [row["points"] for row in standings["rows"]])
        ratings = [change["oldRating"] for change in changes]
    except (ValueError, KeyError, TypeError) as error:
        raise DataNotFound(
            f"no rating: {files[0]}, {files[1].name}: not responses of Codeforces' API "
            f"({error!r}); download them again"
        ) from error
    return (standings, changes) if ratings and all(fields) else None
