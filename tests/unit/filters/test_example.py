"""The example of a filter of one's own, loaded as a run loads it."""

from pathlib import Path

import numpy as np
import pytest

from verl_pipeline.filters import BatchView, load_filters
from verl_pipeline.filters.filter_chain import apply_filters

FOLDER = Path(__file__).parents[3] / "examples" / "custom_filter"


def test_too_easy_prompts_leave(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    rewards = np.array([1.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    batch = BatchView(
        uids=["a", "a", "a", "a", "b", "b"],
        sessions=np.array([0, 1, 2, 3, 0, 1]),
        rewards=rewards,
        verdicts=[None] * 6,
        response_lengths=np.full(6, 3),
        limits=np.full(6, 8),
        truncated=np.zeros(6, dtype=bool),
    )
    filters = load_filters(["infrastructure", {"name": "too_easy.TooEasy", "share": 0.5}])
    found = apply_filters(filters, batch)
    assert found.kept.tolist() == [4, 5] and found.metrics["filters/too_easy/dropped"] == 4
    with pytest.raises(ValueError, match="share=7 must lie in"):
        load_filters([{"name": "too_easy.TooEasy", "share": 7}])


def test_it_is_thirty_lines():
    assert len((FOLDER / "too_easy.py").read_text().splitlines()) <= 30
