"""Unpadded computations against verl's own functions on padded tensors, for all modes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import agg_loss
from verl.trainer.ppo.rollout_corr_helper import (
    SUPPORTED_ROLLOUT_RS_OPTIONS,
    compute_rollout_correction_and_rejection_mask,
)
from verl.utils.debug.metrics import calculate_debug_metrics

from verl_pipeline.verl_adapter.jagged import rows as rows_module
from verl_pipeline.verl_adapter.jagged.correction import PREFIX, compute_correction
from verl_pipeline.verl_adapter.jagged.log_probs import (
    AGGREGATIONS,
    aggregate_tokens,
    compare_probabilities,
)
from verl_pipeline.verl_adapter.jagged.rows import TokenRows, make_nested

NAN = math.nan


@st.composite
def batches(draw):
    """Log-probs of both policies, a mask and its rows, jagged and padded; NaN where nothing
    counts.
    """
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=12))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    total, sizes = sum(lengths), torch.tensor(lengths)
    mask = torch.from_numpy(generator.random(total) < draw(st.sampled_from([0.5, 0.9, 1.0])))
    for row in mask.split(lengths):
        if generator.random() < 0.15:
            row[:] = False
    assume(bool(mask.any()))
    old = -torch.from_numpy(generator.exponential(0.7, total)).float()
    gap = draw(st.sampled_from([0.0, 0.02, 0.5, 8.0]))
    rollout = old + gap * torch.from_numpy(generator.standard_normal(total)).float()
    old[~mask] = rollout[~mask] = NAN
    whole = bool(mask.all()) and draw(st.booleans())
    return old, rollout, TokenRows(sizes, None if whole else mask), mask.long()


def pad(values, lengths, fill=0):
    return make_nested(values, lengths).to_padded_tensor(fill)


def assert_same(ours, theirs):
    assert set(ours) == set(theirs)
    for name, expected in theirs.items():
        # A deviation is the root of a difference of float32 sums of about the same size.
        slack = 2e-3 if "std" in name else 2e-5
        assert ours[name] == pytest.approx(expected, rel=2e-4, abs=slack, nan_ok=True), name


@st.composite
def corrections(draw):
    level = draw(st.sampled_from([None, "token", "sequence"]))
    names = sorted(SUPPORTED_ROLLOUT_RS_OPTIONS)
    options = draw(st.lists(st.sampled_from(names), unique=True, max_size=3))
    bounds = {True: ["0.5_1.7", "2.5"], False: ["0.01", "0.7", "30"]}
    thresholds = [draw(st.sampled_from(bounds[name.endswith("k1")])) for name in options]
    return {
        "rollout_is": level,
        "rollout_is_threshold": draw(st.sampled_from([2.0, "1.3", "0.6_1.5"])),
        "rollout_is_batch_normalize": draw(st.booleans()),
        "rollout_rs": ",".join(options) or None,
        "rollout_rs_threshold": ",".join(thresholds) or None,
    }


@settings(max_examples=80, deadline=None)
@given(batches(), corrections(), st.sampled_from([7, 64, 1 << 18]))
def test_correction_equals_verls(batch, config, block):
    old, rollout, rows, mask = batch
    lengths = rows.lengths
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "BLOCK_TOKENS", block)
        ours = compute_correction(rows.select(old), rows.select(rollout), rows.counts, config)
    try:
        proto, kept, metrics = compute_rollout_correction_and_rejection_mask(
            # verl multiplies with the mask where it does not select, which leaves a NaN.
            *(pad(values.nan_to_num(), lengths) for values in (old, rollout)),
            pad(mask, lengths),
            **config,
        )
    except ZeroDivisionError:  # verl's, if all weights are 0
        assert not ours.weights.any() and ours.metrics[f"{PREFIX}rollout_is_eff_sample_size"] == 0
        return
    assert_same(ours.metrics, metrics)
    assert all(name.startswith(PREFIX) for name in ours.metrics)
    if proto is None:
        assert ours.weights is None
    else:
        weights = pad(rows.spread(ours.weights), lengths)
        torch.testing.assert_close(weights, proto.batch["rollout_is_weights"], rtol=2e-4, atol=1e-6)
    left = rows if ours.kept is None else rows.keep(ours.kept)
    ours_mask = mask if left.mask is None else left.mask.long()
    assert torch.equal(pad(ours_mask, lengths), kept)


@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from([7, 1 << 18]))
def test_probabilities_compare_as_in_verl(batch, block):
    old, rollout, rows, mask = batch
    rollout = rollout.clamp(max=0)
    padded = {
        "old_log_probs": pad(old.nan_to_num(), rows.lengths),
        "rollout_log_probs": pad(rollout.nan_to_num(), rows.lengths),
        "response_mask": pad(mask, rows.lengths),
        "responses": pad(mask, rows.lengths),
    }
    theirs = calculate_debug_metrics(DataProto(TensorDict(padded, len(rows.lengths))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "BLOCK_TOKENS", block)
        ours = compare_probabilities(rows.select(old), rows.select(rollout), rows.counts)
    assert_same(ours, theirs)


def test_no_token_at_all_compares_as_in_verl():
    mask = torch.zeros(2, 3, dtype=torch.long)
    values = dict.fromkeys(("old_log_probs", "rollout_log_probs"), torch.zeros(2, 3))
    padded = TensorDict({**values, "response_mask": mask, "responses": mask}, 2)
    empty = torch.zeros(0)
    ours = compare_probabilities(empty, empty, torch.zeros(2, dtype=torch.int64))
    assert_same(ours, calculate_debug_metrics(DataProto(padded)))
    with pytest.raises(ValueError, match="at least one valid token"):
        compute_correction(empty, empty, torch.zeros(2, dtype=torch.int64), {})


@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from(AGGREGATIONS), st.sampled_from([None, 100]))
def test_entropy_is_aggregated_as_in_verl(batch, mode, scale):
    old, _rollout, rows, mask = batch
    entropy = (-old).nan_to_num()
    theirs = agg_loss(
        pad(entropy, rows.lengths), pad(mask, rows.lengths), mode, loss_scale_factor=scale
    )
    ours = aggregate_tokens(
        rows.select(entropy), rows.counts, mode, scale=scale, longest=int(rows.lengths.max())
    )
    assert ours == pytest.approx(float(theirs), rel=1e-5)
