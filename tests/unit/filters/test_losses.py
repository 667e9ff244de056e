"""What the filters do to verl's GRPO advantages and to each of its loss modes, against numbers
worked out by hand.

One prompt, four trajectories, limit 4 tokens:

    row  reward  tokens  cut off
    0    1       2       no
    1    0       4       no
    2    0       4       yes
    3    1       4       yes

At a ratio of 1 the loss of a token is minus its advantage. verl divides by the tokens of the
mini-batch's ``loss_mask`` (token-mean) or by the fixed ppo_mini_batch_size x rollout.n, here 4 (the
sequence means); seq-mean-token-sum-norm also by the padded response length, here 4.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories
from verl.workers.config import FSDPActorConfig

from verl_pipeline.filters import BatchView, load_filters
from verl_pipeline.filters.filter_chain import apply_filters

LIMIT = 4
ROWS = [("p", 1.0, 2, False), ("p", 0.0, 4, False), ("p", 0.0, 4, True), ("p", 1.0, 4, True)]
PADDING = ("padding", 0.0, 0, False)
LOSS_MODES = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")


def train_on(rows, filters, mini_batch=4):
    """Filters, verl's padding, verl's advantages, our zeros: rows left with their positions,
    advantages, masks.
    """
    view = BatchView(
        uids=[row[0] for row in rows],
        sessions=np.arange(len(rows)),
        rewards=np.array([row[1] for row in rows]),
        verdicts=[None] * len(rows),
        response_lengths=np.array([row[2] for row in rows]),
        limits=np.full(len(rows), LIMIT),
        truncated=np.array([row[3] for row in rows]),
    )
    sizes = {uid: view.uids.count(uid) for uid in view.uids}
    filtered = apply_filters(load_filters(filters), view, sizes)
    zeroed = filtered.zeroed[filtered.kept]
    left = [rows[row] for row in filtered.kept]
    if not left:  # an update that the trainer skips
        return filtered.kept, torch.zeros(0, LIMIT), torch.zeros(0, LIMIT)
    padded = left + [PADDING] * (-len(left) % mini_batch)
    mask = torch.tensor(
        [[float(token < max(row[2], 1)) for token in range(LIMIT)] for row in padded]
    )
    mask[len(left) :] = 0
    scores = torch.zeros(len(padded), LIMIT)
    for row, (_uid, reward, length, _cut) in enumerate(padded):
        scores[row, max(length, 1) - 1] = reward
    data = DataProto(
        batch=TensorDict(
            {"token_level_rewards": scores, "response_mask": mask}, batch_size=len(padded)
        ),
        non_tensor_batch={"uid": np.array([row[0] for row in padded], dtype=object)},
    )
    keys = [f"{row[0]}_{position}_0" for position, row in enumerate(padded)]
    advantages = compute_advantage_for_multi_trajectories(data, keys, adv_estimator="grpo").batch[
        "advantages"
    ]
    advantages[: len(left)][torch.from_numpy(zeroed)] = 0
    return filtered.kept, advantages, mask


def loss_of(advantages, mask, loss_mode, mini_batch=4):
    config = FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=4,
        ppo_mini_batch_size=1,
        ppo_micro_batch_size_per_gpu=1,
        loss_agg_mode=loss_mode,
    )
    config.global_batch_info.update(
        dp_size=1, batch_num_tokens=mask.sum(), global_batch_size=mini_batch
    )
    log_prob = torch.zeros_like(mask)
    loss, _metrics = get_policy_loss_fn("vanilla")(
        old_log_prob=log_prob,
        log_prob=log_prob,
        advantages=advantages,
        response_mask=mask,
        loss_agg_mode=loss_mode,
        config=config,
    )
    return float(loss)


# Standard deviations are unbiased: of 1, 0, 0, 1 it is sqrt(1/3); of 1, 0 sqrt(1/2); of 1, 0, 1
# sqrt(1/3) around 2/3.
A, B = 0.5 / math.sqrt(1 / 3), 0.5 / math.sqrt(1 / 2)
C, D = (1 / 3) / math.sqrt(1 / 3), (-2 / 3) / math.sqrt(1 / 3)
GOLDEN = {
    "none": ([], [0, 1, 2, 3], [A, -A, -A, A], 14),
    "drop": ([{"name": "overlong", "mode": "drop"}], [0, 1], [B, -B], 6),
    "wrong_only": ([{"name": "overlong", "mode": "wrong_only"}], [0, 1, 3], [C, D, C], 10),
    "deepcoder": ([{"name": "overlong", "mode": "deepcoder"}], [0, 1, 2, 3], [A, 0.0, 0.0, A], 14),
}
# What each mode makes of it by hand: the sum over rows, then what it is divided by.
BY_HAND = {
    ("none", "token-mean"): -(2 * A - 4 * A - 4 * A + 4 * A) / 14,
    ("none", "seq-mean-token-sum"): -(2 * A - 4 * A - 4 * A + 4 * A) / 4,
    ("none", "seq-mean-token-mean"): -(A - A - A + A) / 4,
    ("none", "seq-mean-token-sum-norm"): -(2 * A - 4 * A - 4 * A + 4 * A) / 4 / 4,
    ("drop", "token-mean"): -(2 * B - 4 * B) / 6,
    ("drop", "seq-mean-token-sum"): -(2 * B - 4 * B) / 4,
    ("drop", "seq-mean-token-mean"): -(B - B) / 4,
    ("drop", "seq-mean-token-sum-norm"): -(2 * B - 4 * B) / 4 / 4,
    ("wrong_only", "token-mean"): -(2 * C + 4 * D + 4 * C) / 10,
    ("wrong_only", "seq-mean-token-sum"): -(2 * C + 4 * D + 4 * C) / 4,
    ("wrong_only", "seq-mean-token-mean"): -(C + D + C) / 4,
    ("wrong_only", "seq-mean-token-sum-norm"): -(2 * C + 4 * D + 4 * C) / 4 / 4,
    # Row 1 is no less at its limit than row 2, and has no reward either: by length alone both are
    # masked.
    ("deepcoder", "token-mean"): -(2 * A + 4 * A) / 14,
    ("deepcoder", "seq-mean-token-sum"): -(2 * A + 4 * A) / 4,
    ("deepcoder", "seq-mean-token-mean"): -(A + A) / 4,
    ("deepcoder", "seq-mean-token-sum-norm"): -(2 * A + 4 * A) / 4 / 4,
}


@pytest.mark.parametrize("case", GOLDEN)
def test_advantages_and_losses_by_hand(case):
    filters, kept_by_hand, by_hand, tokens = GOLDEN[case]
    kept, advantages, mask = train_on(ROWS, filters)
    assert kept.tolist() == kept_by_hand
    # verl adds 1e-6 to the standard deviation.
    assert advantages[: len(kept), 0].tolist() == pytest.approx(by_hand, rel=1e-5)
    assert mask.sum() == tokens and not advantages[len(kept) :].any()
    for loss_mode in LOSS_MODES:
        assert loss_of(advantages, mask, loss_mode) == pytest.approx(
            BY_HAND[case, loss_mode], rel=1e-5, abs=1e-7
        )


def test_zero_variance_leaves_the_others_alone():
    flat = [("q", 1.0, 3, False)] * 4
    kept, advantages, mask = train_on([*flat, *ROWS], ["zero_variance"])
    assert kept.tolist() == [4, 5, 6, 7]
    assert loss_of(advantages, mask, "token-mean") == pytest.approx(
        BY_HAND["none", "token-mean"], rel=1e-5
    )


def test_the_lone_survivor_of_a_group_is_not_rewarded_for_surviving():
    rows = [("p", 1.0, 2, False), *[("p", 0.0, 4, True)] * 3]
    kept, advantages, _mask = train_on(rows, ["overlong"])
    assert kept.tolist() == [0] and not advantages.any()


trajectories = st.lists(
    st.tuples(
        st.sampled_from(["p", "q", "r"]),
        st.sampled_from([0.0, 1.0]),
        st.integers(1, LIMIT),
        st.booleans(),
    ).map(lambda row: (*row[:3], row[3] and row[2] == LIMIT)),
    min_size=1,
    max_size=10,
)
MODES = st.sampled_from(["drop", "wrong_only", "deepcoder"])


@settings(deadline=None)
@given(trajectories, MODES, st.randoms(use_true_random=False))
def test_the_order_of_trajectories_changes_nothing(rows, mode, random):
    filters = [{"name": "overlong", "mode": mode}]
    order = list(range(len(rows)))
    random.shuffle(order)
    kept, advantages, mask = train_on(rows, filters)
    kept_shuffled, shuffled, mask_shuffled = train_on([rows[row] for row in order], filters)
    assert sorted(order[row] for row in kept_shuffled) == kept.tolist()
    for position, row in enumerate(kept_shuffled):
        assert torch.allclose(
            shuffled[position], advantages[kept.tolist().index(order[row])], atol=1e-5
        )
    if len(kept):
        for loss_mode in LOSS_MODES:
            assert loss_of(shuffled, mask_shuffled, loss_mode) == pytest.approx(
                loss_of(advantages, mask, loss_mode), abs=1e-5
            )


@settings(deadline=None)
@given(trajectories, st.integers(1, 5), st.randoms(use_true_random=False))
def test_trajectories_that_are_dropped_leave_no_trace(rows, more, random):
    """They are other members of groups that have two or more survivors, or whole groups of their
    own.
    """
    survivors = [row[0] for row in rows if not row[3]]
    groups = ["new", *sorted({uid for uid in survivors if survivors.count(uid) > 1})]
    cut_off = [(random.choice(groups), random.choice([0.0, 1.0]), LIMIT, True) for _ in range(more)]
    _kept, advantages, mask = train_on(rows, ["overlong"])
    _kept, with_them, mask_with_them = train_on([*rows, *cut_off], ["overlong"])
    assert torch.equal(with_them, advantages) and torch.equal(mask_with_them, mask)


@given(ranks=st.sampled_from([1, 2, 4]), per_rank=st.integers(1, 6), n=st.integers(1, 8))
def test_verl_pads_to_whole_mini_batches_and_no_further(ranks, per_rank, n):
    """So there is less than one mini-batch of padding: with a row left, no mini-batch is without
    one, no mean 0/0.
    """
    actor = SimpleNamespace(ppo_mini_batch_size=per_rank * ranks)
    rollout = SimpleNamespace(n=n)
    config = SimpleNamespace(
        trainer=SimpleNamespace(critic_warmup=0),
        actor_rollout_ref=SimpleNamespace(actor=actor, rollout=rollout),
    )
    trainer = SimpleNamespace(use_critic=False, global_steps=1, config=config)
    assert PPOTrainer._get_required_batch_multiple(trainer, ranks) == per_rank * ranks * n
