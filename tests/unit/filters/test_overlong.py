"""Truncation without false alarms, and what overlong and zero_variance do with it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.filters import BatchView, Decision, load_filters
from verl_pipeline.filters.filter_chain import apply_filters
from verl_pipeline.filters.truncation import LengthLimits, find_end_token_ids
from verl_pipeline.testing import tiny_run

EOS, OTHER_EOS, WORD = 2, 7, 11
LIMITS = LengthLimits(
    prompt_length=8, response_length=16, max_model_len=20, end_ids=frozenset({EOS, OTHER_EOS})
)


def test_the_requests_own_limit_is_what_verls_server_allows():
    """min(response_length, prompt_length + response_length - prompt, max_model_len - prompt), at
    least 1.
    """
    assert LIMITS.compute_limits(np.array([1, 4, 5, 8, 30])).tolist() == [16, 16, 15, 12, 1]
    wide = LengthLimits(8, 16, 256, frozenset())
    assert wide.compute_limits(np.array([1, 8, 10])).tolist() == [16, 16, 14]


@pytest.mark.parametrize(
    ("prompt", "length", "last", "truncated"),
    [
        (4, 16, WORD, True),
        (4, 16, EOS, False),  # ends exactly at the limit
        (4, 16, OTHER_EOS, False),
        (4, 15, WORD, False),  # cannot be: it stopped, so it ended
        (8, 12, WORD, True),  # cut off by the model's length, not by response_length
        (8, 11, EOS, False),
    ],
)
def test_truncated_is_at_the_limit_without_an_end(prompt, length, last, truncated):
    limits = LIMITS.compute_limits(np.array([prompt]))
    assert LIMITS.find_truncated(np.array([length]), limits, [last]).tolist() == [truncated]


def test_all_ids_that_end_a_sequence_are_known(tmp_path):
    from transformers import AutoTokenizer, GenerationConfig

    path = str(tiny_run.write_model(tmp_path / "model"))
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert find_end_token_ids(tokenizer, path) == {tokenizer.eos_token_id}
    GenerationConfig(eos_token_id=[0, tokenizer.eos_token_id]).save_pretrained(path)
    assert find_end_token_ids(tokenizer, path) == {0, tokenizer.eos_token_id}


def batch(rewards, truncated, at_limit=None, uids=None):
    n = len(rewards)
    at_limit = truncated if at_limit is None else at_limit
    return BatchView(
        uids=uids or ["p"] * n,
        sessions=np.arange(n),
        rewards=np.array(rewards, dtype=float),
        verdicts=[None] * n,
        response_lengths=np.where(at_limit, 16, 5),
        limits=np.full(n, 16),
        truncated=np.array(truncated),
    )


# Four kinds of trajectory: (reward, cut off), then one that is wrong and ends exactly at the limit.
KINDS = batch([1, 0, 1, 0, 0], [True, True, False, False, False], [True, True, False, False, True])


@pytest.mark.parametrize(
    ("mode", "dropped", "zeroed"),
    [("drop", [0, 1], []), ("wrong_only", [1], []), ("deepcoder", [], [1, 4])],
)
def test_modes(mode, dropped, zeroed):
    (entry,) = load_filters([{"name": "overlong", "mode": mode}])
    decisions = entry.decide(KINDS)
    assert [row for row, decision in enumerate(decisions) if decision is Decision.DROP] == dropped
    assert [
        row for row, decision in enumerate(decisions) if decision is Decision.ZERO_ADVANTAGE
    ] == zeroed
    assert entry.only_drops == (mode != "deepcoder")


def test_reports_truncation_before_and_after():
    found = apply_filters(load_filters(["overlong"]), KINDS).metrics
    assert (
        found["filters/before/truncated_share"] == 0.4
        and found["filters/after/truncated_share"] == 0.0
    )
    assert found["filters/overlong/dropped"] == 2 and found["filters/overlong/reward_mean"] == 0.5


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 0.5, 1.0])), max_size=12))
def test_zero_variance_drops_groups_of_equal_rewards_and_nothing_else(rows):
    uids = [uid for uid, _ in rows]
    (entry,) = load_filters(["zero_variance"])
    decisions = entry.decide(batch([reward for _, reward in rows], [False] * len(rows), uids=uids))
    for (uid, _), decision in zip(rows, decisions, strict=True):
        group = [reward for other, reward in rows if other == uid]
        flat = len(group) > 1 and len(set(group)) == 1
        assert decision is (Decision.DROP if flat else Decision.KEEP)
