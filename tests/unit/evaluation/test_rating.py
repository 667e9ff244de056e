"""CodeElo's rating, by hand and against Elo's own model."""

import json

import pytest

from verl_pipeline.evaluation.data import DataNotFound, Finder
from verl_pipeline.evaluation.rating import contest_rating, expected_rating, rate

PROBLEMS = [{"index": "A", "points": 500.0}, {"index": "B", "points": 1000.0}]
ROWS = [{"points": points, "penalty": 0} for points in (1500.0, 1000.0, 500.0, 450.0, 0.0)]
RATINGS = [2000, 1800, 1600, 1400, 1200]
CHANGES = [{"handle": str(rating), "oldRating": rating} for rating in RATINGS]


def test_the_rating_expects_its_rank():
    for rank in (1.5, 2, 3, 4.5):
        rating = expected_rating(rank, RATINGS)
        assert 1 + sum(
            1 / (1 + 10 ** ((rating - other) / 400)) for other in RATINGS
        ) == pytest.approx(rank, abs=1e-6)
    assert expected_rating(2, [1500, 1500]) == pytest.approx(1500, abs=1e-6)


def test_attempts_cost_points():
    standings = {"problems": PROBLEMS, "rows": ROWS}
    # A at the second attempt: 450 points, behind three.
    assert contest_rating(standings, CHANGES, {"A": [0.0, 1.0, 1.0]}) == pytest.approx(
        expected_rating(4, RATINGS)
    )
    assert contest_rating(standings, CHANGES, {"A": [1.0], "B": [1.0]}) == pytest.approx(
        expected_rating(1, RATINGS)
    )
    assert contest_rating(standings, CHANGES, {"A": [0.0]}) == pytest.approx(
        expected_rating(5, RATINGS)
    )


def test_without_points_solved_problems_and_then_penalties_count():
    standings = {
        "problems": [{"index": "A"}],
        "rows": [{"points": 1.0, "penalty": 5}, {"points": 1.0, "penalty": 15}],
    }
    assert contest_rating(standings, CHANGES[:2], {"A": [0.0, 1.0]}) == pytest.approx(
        expected_rating(2, RATINGS[:2])
    )


def test_contests_are_found_or_asked_for(tmp_path):
    rewards = {"2000A": [1.0], "2000B": [0.0], "1999A": [1.0]}
    with pytest.raises(DataNotFound, match="contest.standings"):
        rate(Finder(tmp_path), rewards)
    with pytest.raises(DataNotFound, match="ids like 2000A"):
        rate(Finder(tmp_path), {"row-1": [1.0]})
    folder = tmp_path / "codeforces_contests"
    folder.mkdir()
    (folder / "2000.standings.json").write_text(
        json.dumps({"result": {"problems": PROBLEMS, "rows": ROWS}})
    )
    (folder / "2000.ratingChanges.json").write_text(json.dumps({"result": CHANGES}))
    found = rate(Finder(tmp_path), rewards)
    (folder / "1999.standings.json").write_text('{"status": "FAILED"}')
    (folder / "1999.ratingChanges.json").write_text("<html>")
    with pytest.raises(DataNotFound, match="1999.standings.json.*no answers of Codeforces"):
        rate(Finder(tmp_path), rewards)
    assert found["value"] == pytest.approx(expected_rating(3, RATINGS)) and found["contests"] == 1
    assert found["low"] is None and found["note"].startswith("1 of 2 contests")
