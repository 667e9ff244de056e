"""CodeElo's rating against hand-computed values and Elo's model."""

import json

import pytest

from verl_pipeline.evaluation.data import DataFinder, DataNotFound
from verl_pipeline.evaluation.rating import compute_contest_rating, estimate_rating, solve_rating

PROBLEMS = [{"index": "A", "points": 500.0}, {"index": "B", "points": 1000.0}]
ROWS = [{"points": points, "penalty": 0} for points in (1500.0, 1000.0, 500.0, 450.0, 0.0)]
RATINGS = [2000, 1800, 1600, 1400, 1200]
CHANGES = [{"handle": str(rating), "oldRating": rating} for rating in RATINGS]


def test_the_rating_has_the_expected_rank():
    for rank in (1.5, 2, 3, 4.5):
        rating = solve_rating(rank, RATINGS)
        assert 1 + sum(
            1 / (1 + 10 ** ((rating - other) / 400)) for other in RATINGS
        ) == pytest.approx(rank, abs=1e-6)
    assert solve_rating(2, [1500, 1500]) == pytest.approx(1500, abs=1e-6)


def test_failed_attempts_cost_points():
    standings = {"problems": PROBLEMS, "rows": ROWS}
    # A is solved at the second attempt: 450 points, rank 4.
    assert compute_contest_rating(standings, CHANGES, {"A": [0.0, 1.0, 1.0]}) == pytest.approx(
        solve_rating(4, RATINGS)
    )
    assert compute_contest_rating(standings, CHANGES, {"A": [1.0], "B": [1.0]}) == pytest.approx(
        solve_rating(1, RATINGS)
    )
    assert compute_contest_rating(standings, CHANGES, {"A": [0.0]}) == pytest.approx(
        solve_rating(5, RATINGS)
    )


def test_without_points_solved_problems_count_before_penalties():
    standings = {
        "problems": [{"index": "A"}],
        "rows": [{"points": 1.0, "penalty": 5}, {"points": 1.0, "penalty": 15}],
    }
    assert compute_contest_rating(standings, CHANGES[:2], {"A": [0.0, 1.0]}) == pytest.approx(
        solve_rating(2, RATINGS[:2])
    )


def test_missing_or_broken_standings_are_named(tmp_path):
    rewards = {"2000A": [1.0], "2000B": [0.0], "1999A": [1.0]}
    with pytest.raises(DataNotFound, match="contest.standings"):
        estimate_rating(DataFinder(tmp_path), rewards)
    with pytest.raises(DataNotFound, match="ids like 2000A"):
        estimate_rating(DataFinder(tmp_path), {"row-1": [1.0]})
    folder = tmp_path / "codeforces_contests"
    folder.mkdir()
    (folder / "2000.standings.json").write_text(
        json.dumps({"result": {"problems": PROBLEMS, "rows": ROWS}})
    )
    (folder / "2000.ratingChanges.json").write_text(json.dumps({"result": CHANGES}))
    found = estimate_rating(DataFinder(tmp_path), rewards)
    (folder / "1999.standings.json").write_text('{"status": "FAILED"}')
    (folder / "1999.ratingChanges.json").write_text("<html>")
    with pytest.raises(DataNotFound, match="1999.standings.json.*not responses of Codeforces"):
        estimate_rating(DataFinder(tmp_path), rewards)
    assert found["value"] == pytest.approx(solve_rating(3, RATINGS)) and found["contests"] == 1
    assert found["low"] is None and found["note"].startswith("1 of 2 contests")
