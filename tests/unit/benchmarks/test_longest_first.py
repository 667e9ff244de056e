"""Guessed orders are orders of the same work, as near to the lengths as their correlation says."""

import numpy as np
import pytest

from benchmarks.longest_first import guess_order
from tests.helpers.planner_cases import make_small
from verl_pipeline.planner.workload import draw_workload

LOGNORMAL = {"kind": "lognormal", "mean": 100, "sigma": 0.8, "cap": 4000}
PROFILE = make_small(
    sampling__prompts=200, sampling__samples=2, sampling__response_tokens=LOGNORMAL
)
WORKLOAD = draw_workload(PROFILE, 3, 0)


@pytest.mark.parametrize("correlation", [1.0, 0.6])
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_every_trajectory_has_one_place(correlation, share):
    guessed = guess_order(WORKLOAD, correlation, share, 0)
    size = WORKLOAD.responses.shape[1]
    for batch in range(3):
        order = guessed.order(batch, longest_first=True)
        assert sorted(order) == list(range(size))
        rest = order[round(share * size) :]
        assert sorted(rest) == rest.tolist()
        assert guessed.order(batch, longest_first=False).tolist() == list(range(size))


def test_a_perfect_guess_falls_and_another_is_as_near_as_it_says():
    for correlation in (1.0, 0.6):
        guessed = guess_order(WORKLOAD, correlation, 1.0, 0)
        lengths = np.stack([WORKLOAD.responses[b][guessed.order(b, True)] for b in range(3)])
        if correlation == 1.0:
            assert (np.diff(lengths, axis=1) <= 0).all()
        ranks = -np.arange(lengths.shape[1])
        found = np.mean([np.corrcoef(ranks, np.argsort(np.argsort(row)))[0, 1] for row in lengths])
        # Of ranks a little less than of logarithms.
        assert found == pytest.approx(correlation, abs=0.1)
