"""How training scales, from two runs."""

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.planner_run import fit_scaling
from verl_pipeline.planner.profile import Training


@given(st.floats(0, 1), st.floats(0.1, 1e4), st.integers(1, 64), st.integers(1, 64))
def test_the_exponent_that_made_the_times_is_found(exponent, seconds, gpus, others):
    one, other = (
        Training(gpus=count, update_s=seconds * count**-exponent) for count in (gpus, others)
    )
    if gpus == others:
        with pytest.raises(typer.BadParameter, match=f"both runs train on {gpus} devices"):
            fit_scaling(one, other)
    else:
        assert fit_scaling(one, other) == pytest.approx(exponent, abs=1e-6)
