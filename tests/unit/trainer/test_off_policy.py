"""Effective sample size and divergence by age, against their definitions on single tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_pipeline.trainer.off_policy import EFFECTIVE, RowDivergence, measure_divergence

ratios = st.lists(st.floats(0.01, 50.0), max_size=6)


def add_up(rows):
    """Rows of (age, ratios of its tokens) as the sums that the ranks send."""
    arrays = [np.array(tokens, dtype=float) for _age, tokens in rows]
    return RowDivergence(
        np.array([age for age, _tokens in rows], dtype=np.int64),
        np.array([len(array) for array in arrays], dtype=np.int64),
        np.array([array.sum() for array in arrays]),
        np.array([(array**2).sum() for array in arrays]),
        np.array([(array - 1 - np.log(array)).sum() for array in arrays]),
    )


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), ratios), min_size=1, max_size=8))
def test_each_figure_is_that_of_its_tokens(rows):
    found = measure_divergence(add_up(rows))
    by_age = {}
    for age, tokens in rows:
        by_age.setdefault(age, []).extend(tokens)
    tokens = {f"/age_{age}": np.array(values) for age, values in by_age.items() if values}
    if tokens:
        tokens[""] = np.concatenate(list(tokens.values()))
    expected = {
        f"{EFFECTIVE}{age}": values.sum() ** 2 / (len(values) * (values**2).sum())
        for age, values in tokens.items()
    } | {
        f"pipeline/correction/kl{age}": (values - 1 - np.log(values)).mean()
        for age, values in tokens.items()
        if age
    }
    assert found == pytest.approx(expected, abs=1e-9)
    assert all(0 < found[f"{EFFECTIVE}{age}"] <= 1 + 1e-9 for age in tokens)


def test_a_policy_that_gave_up_every_token_has_no_effective_sample():
    assert measure_divergence(add_up([(1, [0.5])]))[EFFECTIVE] == 1.0
    zero = np.zeros(1)
    rows = RowDivergence(np.ones(1, int), np.ones(1, int), zero, zero, zero)
    assert measure_divergence(rows)[EFFECTIVE] == 0.0
