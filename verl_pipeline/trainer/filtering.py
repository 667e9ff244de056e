"""Filters inside a trainer of verl: between the rewards and the balancing of the batch.

Mixed into :class:`~verl_pipeline.trainer.one_off.OneOffPipelineTrainer` and
:class:`~verl_pipeline.trainer.filtered_sync.FilteredSyncTrainer`, in front of verl's class.

Invariants:
* Filters run once a batch, before verl pads and balances it: no compute is spent on a dropped row,
  and no filter sees padding.
* A batch that leaves nothing to learn from makes no update: weights, optimizer and learning-rate
  schedule stay as they are, the step is counted (``filters/skipped_update``) and the run goes on.
* No mini-batch consists of dropped rows only: verl pads what is left to whole mini-batches, with
  less than one mini-batch of padding.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.rollout.utils import get_max_position_embeddings

from verl_pipeline.filters.apply import Filtered, apply_filters, lone_survivors
from verl_pipeline.filters.protocol import BatchView, Filter
from verl_pipeline.filters.truncation import Limits, end_of_sequence_ids
from verl_pipeline.trainer import prompts
from verl_pipeline.trainer.batch import Seen, keep, look_at, zero_advantages

# Estimators of verl that subtract a baseline made of the group's other members.
GROUP_RELATIVE = {
    "grpo",
    "grpo_passk",
    "grpo_vectorized",
    "gdpo",
    "rloo",
    "rloo_vectorized",
    "reinforce_plus_plus_baseline",
    "opo",
    "gpg",
    "optimal_token_baseline",
    "tir_optimal_token_baseline",
}


class _NothingToLearn(Exception):
    """The filters left nothing of ``batch``, which verl's loop clears from TransferQueue at the end
    of the step.
    """

    def __init__(self, batch: KVBatchMeta):
        self.batch = batch


def judge(
    batch: KVBatchMeta,
    view: BatchView,
    filters: list[Filter],
    group_sizes: dict[str, int],
    adv_estimator: str,
) -> Filtered:
    """Apply ``filters``, and look for lone survivors under a group-relative advantage; changes
    nothing.

    Args:
        group_sizes: sessions that were asked for, by prompt.
    """

    def alone(kept: np.ndarray) -> np.ndarray:
        keys = [batch.keys[row] for row in kept]
        found = lone_survivors(
            [(prompts.prompt_of(key), prompts.session_of(key)) for key in keys], group_sizes
        )
        return found & np.array(adv_estimator in GROUP_RELATIVE)

    return apply_filters(filters, view, alone)


def limits_of(rollout: Mapping[str, Any], model: Mapping[str, Any]) -> Limits:
    """Of verl's sections ``actor_rollout_ref.rollout`` and ``actor_rollout_ref.model``.

    Without ``max_model_len`` verl's servers take the model's positions.
    """
    loaded = omega_conf_to_dataclass(model)
    longest = rollout["max_model_len"] or get_max_position_embeddings(loaded.hf_config)
    ends = end_of_sequence_ids(
        loaded.tokenizer, loaded.local_path, trust_remote_code=loaded.trust_remote_code
    )
    return Limits(rollout["prompt_length"], rollout["response_length"], longest, ends)


class FilteringTrainer(PPOTrainer):
    """verl's trainer with filters; a subclass sets ``filters`` before it calls verl's constructor."""

    filters: list[Filter]
    # Keys of the current batch whose advantage is to be 0.
    _zeroed: set[str] = frozenset()  # type: ignore[assignment]

    def group_sizes(self, batch: KVBatchMeta, seen: Seen, metrics: dict) -> dict[str, int]:
        """Sessions that were asked for, by prompt; a subclass also checks the batch here."""
        return dict.fromkeys(seen.view.uids, self.config.actor_rollout_ref.rollout.n)

    def _init_tokenizer(self) -> None:
        super()._init_tokenizer()
        self._limits = limits_of(
            self.config.actor_rollout_ref.rollout, self.config.actor_rollout_ref.model
        )

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        try:
            return super()._step_once(metrics, timing_raw, sample_batch_size)
        except _NothingToLearn as stop:
            metrics["filters/skipped_update"] = 1.0
            return stop.batch

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args, **kwargs) -> KVBatchMeta:
        """verl's next stop after the rewards."""
        seen = look_at(batch, self._limits)
        sizes = self.group_sizes(batch, seen, metrics)
        judged = judge(batch, seen.view, self.filters, sizes, self.config.algorithm.adv_estimator)
        metrics.update(judged.metrics | {"filters/skipped_update": 0.0})
        if not len(judged.kept if self._learns_without_advantage else judged.trained_on):
            raise _NothingToLearn(batch)
        self._zeroed = {batch.keys[row] for row in np.flatnonzero(judged.zeroed)}
        batch = keep(batch, judged.kept)
        return super()._balance_batch(batch, metrics, *args, **kwargs)

    @property
    def _learns_without_advantage(self) -> bool:
        """Whether the loss has another term, so that a batch of rows without advantage still is
        something to learn.
        """
        actor = self.config.actor_rollout_ref.actor
        return bool(self.use_critic or actor.use_kl_loss or actor.entropy_coeff)

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._compute_advantage(batch, metrics)
        zero_advantages(batch, self._zeroed)
        return batch

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict, timing_raw: dict, global_steps: int, epoch: int
    ):
        if not metrics["filters/skipped_update"]:
            return super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        metrics.update({"training/global_step": global_steps, "training/epoch": epoch})
        metrics.update({f"timing_s/{name}": seconds for name, seconds in timing_raw.items()})
