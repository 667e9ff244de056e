"""Removed rows as the files store them."""

from verl_pipeline.recipes.deepcoder.data.problem_records import RemovedRow


def test_the_names_in_removed_jsonl_stay_those_of_earlier_runs():
    row = RemovedRow("taco/2", "taco", "near duplicate", "similar", "taco/1", 0.9, True)
    stored = {
        "id": "taco/2",
        "source": "taco",
        "reason": "near duplicate",
        "detail": "similar",
        "twin": "taco/1",
        "similarity": 0.9,
        "passing": True,
    }
    assert row.to_json() == stored
    assert RemovedRow.parse_json(stored) == row
