"""Names of prompts and trajectories."""

from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.trainer import trajectory_keys


@given(st.lists(st.tuples(*[st.integers(0, 2000)] * 4), unique=True, min_size=1), st.randoms())
def test_sorting_by_name_gives_the_loader_order(rows, random):
    keys = [f"{trajectory_keys.make_prompt_key(b, p)}_{s}_{i}" for b, p, s, i in sorted(rows)]
    shuffled = list(keys)
    random.shuffle(shuffled)
    assert sorted(shuffled, key=trajectory_keys.make_loader_sort_key) == keys


@given(st.integers(1, 10**6), st.integers(0, 10**5), st.integers(0, 99))
def test_a_name_tells_batch_prompt_and_session(batch, position, session):
    uid = trajectory_keys.make_prompt_key(batch, position)
    key = f"{uid}_{session}_0"
    assert trajectory_keys.parse_batch(key) == trajectory_keys.parse_batch(uid) == batch
    assert trajectory_keys.parse_prompt(key) == trajectory_keys.parse_prompt(uid) == uid
    assert trajectory_keys.parse_session(key) == session


def test_names_of_validation_prompts_belong_to_no_batch():
    assert trajectory_keys.parse_batch("0b2c7f1e-3b1a-4c55-9a53-0f6d1d2f9c11_0_0") is None
