"""Names of prompts and trajectories."""

from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.trainer import prompts


@given(st.lists(st.tuples(*[st.integers(0, 2000)] * 4), unique=True, min_size=1), st.randoms())
def test_sorting_by_name_gives_the_loader_order(rows, random):
    keys = [f"{prompts.make_uid(b, p)}_{s}_{i}" for b, p, s, i in sorted(rows)]
    shuffled = list(keys)
    random.shuffle(shuffled)
    assert sorted(shuffled, key=prompts.order) == keys


@given(st.integers(1, 10**6), st.integers(0, 10**5), st.integers(0, 99))
def test_a_name_tells_batch_prompt_and_session(batch, position, session):
    uid = prompts.make_uid(batch, position)
    key = f"{uid}_{session}_0"
    assert prompts.batch_of(key) == prompts.batch_of(uid) == batch
    assert prompts.prompt_of(key) == prompts.prompt_of(uid) == uid
    assert prompts.session_of(key) == session


def test_names_of_validation_prompts_belong_to_no_batch():
    assert prompts.batch_of("0b2c7f1e-3b1a-4c55-9a53-0f6d1d2f9c11_0_0") is None
