"""Joined bars cover what they stand for; thinned curves keep their extremes."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from verl_pipeline.report.thinning import make_bars, pick_evenly, thin_bars, thin_curve

moments = st.floats(0, 1000, allow_nan=False)
bars_drawn = st.lists(st.tuples(st.integers(0, 3), moments, moments), min_size=1, max_size=200)


@settings(deadline=None)
@given(bars_drawn, st.integers(1, 50))
@example([(0, 5.0, 5.0), (1, 5.0, 5.0)], 1)
@example([(0, 0.0, 5e-324), (1, 0.0, 0.0)], 1)
def test_joined_bars_cover_all_of_theirs_and_count_them(spans, limit):
    group = np.array([span[0] for span in spans])
    left = np.array([min(span[1:]) for span in spans])
    right = np.array([max(span[1:]) for span in spans])
    thin, grain = thin_bars(make_bars(group, left, right, np.zeros(len(spans))), limit)
    assert thin.count.sum() == len(spans)
    assert np.isclose(thin.busy.sum(), (right - left).sum())
    assert (len(thin.left) == len(spans)) if grain == 0 else (len(thin.left) <= len(spans))
    for g, start, end in zip(group, left, right, strict=True):
        own = thin.group == g
        assert ((thin.left[own] <= start) & (thin.right[own] >= end)).any()


@settings(deadline=None)
@given(st.integers(1, 100))
def test_short_bars_of_a_long_run_come_down_to_the_limit(limit):
    left = np.arange(10_000) * 1.0
    bars = make_bars(np.zeros(10_000, int), left, left + 0.5, left)
    thin, grain = thin_bars(bars, limit)
    assert len(thin.left) <= limit and grain > 0


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=500),
    st.integers(4, 60),
)
def test_a_thinned_curve_keeps_ends_and_extremes(values, limit):
    y = np.array(values)
    x, thin = thin_curve(np.arange(len(y)) * 1.0, y, limit)
    assert x[0] == 0 and x[-1] == len(y) - 1 and (np.diff(x) > 0).all()
    assert len(x) <= max(1.5 * limit + 1, 0) or len(y) <= limit
    if not np.isnan(y).all():
        assert np.nanmax(thin) == np.nanmax(y) and np.nanmin(thin) == np.nanmin(y)


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), unique=True, min_size=1), st.integers(1, 50))
def test_even_picks_are_distinct_and_as_many_as_asked_for(places, count):
    picked = pick_evenly(np.array(sorted(places)), count)
    assert len(picked) == len(set(picked.tolist())) == min(len(places), count)
