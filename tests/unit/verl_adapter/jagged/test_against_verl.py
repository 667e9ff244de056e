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

from verl_pipeline.trainer.off_policy import EFFECTIVE, RowDivergence, measure_divergence
from verl_pipeline.verl_adapter.jagged import rows as rows_module
from verl_pipeline.verl_adapter.jagged.correction import (
    NORM_FACTOR,
    PREFIX,
    correct_tokens,
    describe_correction,
)
from verl_pipeline.verl_adapter.jagged.log_probs import (
    AGGREGATIONS,
    aggregate_rows,
    describe_probabilities,
    measure_probabilities,
)
from verl_pipeline.verl_adapter.jagged.rank_fields import (
    ADVANTAGES,
    STATISTICS,
    RowPlan,
    make_fields,
    name_columns,
    prepare_update,
)
from verl_pipeline.verl_adapter.jagged.rows import TokenRows, make_nested, sum_rows

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
        # A deviation is the root of a difference of float32 sums of about the squared mean's size.
        mean = abs(theirs.get(name.replace("std", "mean"), 1.0))
        slack = 2e-3 * max(mean, 1.0) if "std" in name else 2e-5
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


@settings(max_examples=40, deadline=None)
@given(batches(), st.sampled_from([None, "token", "sequence"]))
def test_divergence_is_verls_where_nothing_is_truncated(batch, level):
    old, rollout, rows, mask = batch
    ours = correct_tokens(
        rows.select(old), rows.select(rollout), rows.counts, {"rollout_is": level}
    ).columns
    found = measure_divergence(
        RowDivergence(
            np.ones(len(rows.counts), dtype=np.int64),
            rows.counts.numpy(),
            *(ours[name].double().numpy() for name in ("ratio", "ratio_squared", "k3")),
        )
    )
    _proto, _kept, theirs = compute_rollout_correction_and_rejection_mask(
        *(pad(values.nan_to_num(), rows.lengths) for values in (old, rollout)),
        pad(mask, rows.lengths),
        rollout_is="token",
        rollout_is_threshold=1e9,
    )
    # verl divides by the mean ratio + 1e-8, so that its share passes 1 where all ratios are tiny.
    mean = float(ours["ratio"].double().sum() / rows.counts.sum())
    expected = theirs[f"{PREFIX}rollout_is_eff_sample_size"] * (mean / (mean + 1e-8)) ** 2
    assert found[EFFECTIVE] == found[f"{EFFECTIVE}/age_1"] == pytest.approx(expected, rel=1e-3)
    assert found["pipeline/correction/kl/age_1"] == pytest.approx(
        theirs[f"{PREFIX}k3_kl"], rel=1e-3, abs=1e-5
    )


@settings(max_examples=80, deadline=None)
@given(batches(), corrections(), st.sampled_from([7, 64, 1 << 18]))
def test_correction_equals_verls(batch, config, block):
    old, rollout, rows, mask = batch
    lengths = rows.lengths
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "BLOCK_TOKENS", block)
        ours = correct_tokens(rows.select(old), rows.select(rollout), rows.counts, config)
    ours_metrics = describe_correction(ours.columns, rows.counts, config)
    try:
        proto, kept, metrics = compute_rollout_correction_and_rejection_mask(
            # verl multiplies with the mask where it does not select, which leaves a NaN.
            *(pad(values.nan_to_num(), lengths) for values in (old, rollout)),
            pad(mask, lengths),
            **config,
        )
    except ZeroDivisionError:  # verl's, if all weights are 0
        assert not ours.weights.any() and ours_metrics[f"{PREFIX}rollout_is_eff_sample_size"] == 0
        return
    assert_same(ours_metrics, metrics)
    assert all(name.startswith(PREFIX) for name in ours_metrics)
    if proto is None:
        assert ours.weights is None
    else:
        weights = pad(rows.spread(ours.weights / ours_metrics.get(NORM_FACTOR, 1.0)), lengths)
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
        columns = measure_probabilities(rows.select(old), rows.select(rollout), rows.counts)
    assert_same(describe_probabilities(columns, rows.counts), theirs)


def test_probabilities_far_from_each_other_correlate_as_in_verl():
    """Those of one side are a millionth of the other's: neither hides the other's spread."""
    counts = torch.tensor([2])
    p, q = torch.tensor([-0.0949, -0.4724]), torch.tensor([-12.2763, -9.8423])
    found = describe_probabilities(measure_probabilities(p, q, counts), counts)
    assert found["training/rollout_actor_probs_pearson_corr"] == pytest.approx(-1.0, abs=1e-5)


def test_no_token_at_all_compares_as_in_verl():
    mask = torch.zeros(2, 3, dtype=torch.long)
    values = dict.fromkeys(("old_log_probs", "rollout_log_probs"), torch.zeros(2, 3))
    padded = TensorDict({**values, "response_mask": mask, "responses": mask}, 2)
    empty, counts = torch.zeros(0), torch.zeros(2, dtype=torch.int64)
    ours = describe_probabilities(measure_probabilities(empty, empty, counts), counts)
    assert_same(ours, calculate_debug_metrics(DataProto(padded)))
    with pytest.raises(ValueError, match="at least one valid token"):
        describe_correction(correct_tokens(empty, empty, counts, {}).columns, counts, {})


@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from(AGGREGATIONS), st.sampled_from([None, 100]))
def test_entropy_is_aggregated_as_in_verl(batch, mode, scale):
    old, _rollout, rows, mask = batch
    entropy = (-old).nan_to_num()
    theirs = agg_loss(
        pad(entropy, rows.lengths), pad(mask, rows.lengths), mode, loss_scale_factor=scale
    )
    sums = sum_rows(rows.select(entropy), rows.counts)
    longest = int(rows.lengths.max())
    ours = aggregate_rows(sums, rows.counts, mode, scale=scale, longest=longest)
    assert ours == pytest.approx(float(theirs), rel=1e-5)


def make_rank_data(batch, prompts):
    """What a rank has of ``batch`` after its forward pass; the prompt's values are NaN."""
    old, rollout, rows, mask = batch
    pieces = [
        torch.cat([torch.full((prompt - 1,), NAN), row, torch.tensor([NAN])])
        for prompt, row in zip(prompts, old.split(rows.lengths.tolist()), strict=True)
    ]
    values, lengths = torch.cat(pieces), rows.lengths + torch.tensor(prompts)
    data = {
        "response_mask": make_nested(mask, rows.lengths),
        "rollout_log_probs": make_nested(rollout, rows.lengths),
    }
    output = {
        "log_probs": make_nested(values, lengths),
        "entropy": make_nested(-values, lengths),
    }
    return TensorDict(data, len(prompts)), TensorDict(output, len(prompts))


@settings(max_examples=60, deadline=None)
@given(batches(), corrections(), st.data())
def test_ranks_of_any_shares_tell_the_driver_the_same(batch, config, data):
    """The statistics of rows do not depend on which rank has them, nor does what it stores."""
    old, rollout, rows, mask = batch
    count = len(rows.lengths)
    prompts = data.draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))
    cut = data.draw(st.integers(0, count))
    plan = RowPlan("old_log_probs", measured=True, compared=True, correction=config)
    whole = make_fields(*make_rank_data(batch, prompts), plan)
    shares = []
    for part in (slice(0, cut), slice(cut, count)):
        if part.start == part.stop:
            continue
        start, end = int(rows.lengths[: part.start].sum()), int(rows.lengths[: part.stop].sum())
        share = (
            old[start:end],
            rollout[start:end],
            TokenRows(rows.lengths[part], mask[start:end] > 0),
            mask[start:end],
        )
        shares.append(make_fields(*make_rank_data(share, prompts[part]), plan))
    names = name_columns(plan)
    assert whole[STATISTICS].shape == (count, len(names))
    whole_columns, columns = (
        dict(zip(names, table.unbind(1), strict=True))
        for table in (whole[STATISTICS], torch.cat([share[STATISTICS] for share in shares]))
    )
    assert torch.equal(columns["count"].long(), rows.counts)
    for describe in (
        lambda found: describe_probabilities(found, rows.counts),
        lambda found: describe_correction(found, rows.counts, config),
    ):
        assert_same(describe(columns), describe(whole_columns))
    for name in whole.keys() - {STATISTICS, "response_mask"}:
        parts = torch.cat([share[name].values() for share in shares])
        torch.testing.assert_close(parts, whole[name].values(), equal_nan=True, rtol=0, atol=0)
    assert torch.equal(whole["old_log_probs"].values().nan_to_num(), old.nan_to_num())


def test_a_rank_without_measurement_stores_the_responses_log_probs_only():
    old = -torch.rand(7)
    batch = old, old.clone(), TokenRows(torch.tensor([3, 4])), torch.ones(7, dtype=torch.int64)
    data, output = make_rank_data(batch, [2, 5])
    del output["entropy"]  # verl computes none for a reference
    fields = make_fields(data, output, RowPlan("ref_log_prob"))
    assert fields.keys() == {"ref_log_prob"}
    assert torch.equal(fields["ref_log_prob"].values(), old)


def test_an_update_sees_advantages_of_tokens_and_normalized_weights():
    lengths, mask = torch.tensor([3, 2]), torch.tensor([1, 0, 1, 1, 1])
    data = TensorDict(
        {
            "response_mask": make_nested(mask, lengths),
            "rollout_is_weights": make_nested(torch.arange(5.0), lengths),
            ADVANTAGES: torch.tensor([-0.5, 2.0]),
        },
        2,
    )
    prepare_update(data, 4.0)
    assert data["advantages"].values().tolist() == [-0.5, 0.0, -0.5, 2.0, 2.0]
    assert data["rollout_is_weights"].values().tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert ADVANTAGES not in data
    before = {name: values.values().tolist() for name, values in data.items()}
    prepare_update(data, None)
    assert {name: values.values().tolist() for name, values in data.items()} == before
