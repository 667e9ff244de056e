"""Batch filters inside verl's trainer, between the rewards and the balancing of the batch.

:class:`FilteringTrainer` is the base of our pipelined trainer. :class:`FilteredSyncTrainer`
(``trainer.v1.trainer_mode=sync_filtered``) adds it to verl's colocated ``sync`` trainer, for any
filter. Filters that only drop rows do not need a trainer of ours in ``sync``: see
:mod:`.trainers.filtering_replay_buffer`.

Invariants:
* Filters run once a batch, before verl pads and balances it: a dropped row costs no compute, and no
  filter sees padding.
* A failed reward counts in no validation mean (:mod:`verl_pipeline.trainer.validation`).
* If the filters leave nothing to learn from, the update is skipped: weights, optimizer and
  learning-rate schedule stay as they are, the step is counted (``filters/skipped_update``) and the
  run goes on.
* No mini-batch consists of padding only: verl pads the remaining rows to whole mini-batches, with
  fewer rows than one mini-batch.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from omegaconf import DictConfig
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.rollout.utils import get_max_position_embeddings

from verl_pipeline.filters.filter_chain import apply_filters
from verl_pipeline.filters.protocol import Filter
from verl_pipeline.filters.truncation import LengthLimits, find_end_token_ids
from verl_pipeline.trainer.batch import TrajectoryBatch
from verl_pipeline.trainer.pipeline_config import (
    FILTERED_SYNC_MODE,
    load_pipeline_config,
    load_sync_filters,
)
from verl_pipeline.trainer.step_metrics import correct_token_rates
from verl_pipeline.trainer.validation import select_graded
from verl_pipeline.verl_adapter.checks.config_checks import check_mini_batches
from verl_pipeline.verl_adapter.placement.ray_cluster import check_cluster
from verl_pipeline.verl_adapter.settings.derived_settings import derive_sync_settings
from verl_pipeline.verl_adapter.telemetry.trainers import record_trainer
from verl_pipeline.verl_adapter.trainers.jagged_trainer import JaggedTrainer
from verl_pipeline.verl_adapter.trainers.tracking import continue_trackers
from verl_pipeline.verl_adapter.trajectories.trajectory_store import (
    bound_waits,
    count_padding_tokens,
    drop_rows,
    read_trajectories,
    zero_advantages,
)

# Advantage estimators of verl that subtract a baseline made of the group's other members.
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
    """The filters left nothing of ``batch``; verl's loop removes it at the end of the step."""

    def __init__(self, batch: KVBatchMeta):
        self.batch = batch


def read_length_limits(rollout: Mapping[str, Any], model: Mapping[str, Any]) -> LengthLimits:
    """Length limits from verl's ``actor_rollout_ref.rollout`` and ``actor_rollout_ref.model``.

    Without ``max_model_len`` verl's servers use the model's number of positions.
    """
    loaded = omega_conf_to_dataclass(model)
    longest = rollout["max_model_len"] or get_max_position_embeddings(loaded.hf_config)
    end_ids = find_end_token_ids(
        loaded.tokenizer, loaded.local_path, trust_remote_code=loaded.trust_remote_code
    )
    return LengthLimits(rollout["prompt_length"], rollout["response_length"], longest, end_ids)


class FilteringTrainer(JaggedTrainer):
    """verl's trainer with filters; a subclass sets ``filters`` before verl's constructor runs."""

    filters: list[Filter]
    # Response tokens of the current batch, before the filters.
    _sampled_tokens = 0
    # Of the current batch, by prompt and session: the filter that dropped or zeroed it.
    filter_reasons: Mapping[tuple[str, int], str] = MappingProxyType({})

    def check_batch(self, batch: TrajectoryBatch, metrics: dict) -> dict[str, int]:
        """Trajectories requested, by prompt; a subclass also checks the batch here."""
        return dict.fromkeys(batch.view.uids, self.config.actor_rollout_ref.rollout.n)

    def fit(self, agent_loop_manager) -> None:
        # verl begins with the step of the checkpoint that it has loaded, or 0.
        with continue_trackers(self.config.trainer, self.global_steps):
            super().fit(agent_loop_manager)

    def _setup(self) -> None:
        bound_waits(load_pipeline_config(self.config).deadlines.queue_s)
        super()._setup()

    def _init_tokenizer(self) -> None:
        super()._init_tokenizer()
        section = self.config.actor_rollout_ref
        self._limits = read_length_limits(section.rollout, section.model)

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        try:
            return super()._step_once(metrics, timing_raw, sample_batch_size)
        except _NothingToLearn as stop:
            metrics["filters/skipped_update"] = 1.0
            return stop.batch

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args, **kwargs) -> KVBatchMeta:
        """verl's first method after the rewards: check and filter the batch before it is padded."""
        trajectories = read_trajectories(batch, self._limits)
        self._sampled_tokens = int(trajectories.view.response_lengths.sum())
        group_sizes = self.check_batch(trajectories, metrics)
        has_group_baseline = self.config.algorithm.adv_estimator in GROUP_RELATIVE
        filtered = apply_filters(
            self.filters, trajectories.view, group_sizes if has_group_baseline else None
        )
        metrics.update(filtered.metrics | {"filters/skipped_update": 0.0})
        self.filter_reasons = filtered.name_sessions(trajectories.view)
        learned_rows = filtered.trained_rows
        if self._learns_without_advantage:
            learned_rows = filtered.kept
        if not len(learned_rows):
            raise _NothingToLearn(batch)
        self._zeroed_keys = frozenset(batch.keys[row] for row in np.flatnonzero(filtered.zeroed))
        return super()._balance_batch(drop_rows(batch, filtered.kept), metrics, *args, **kwargs)

    @property
    def _learns_without_advantage(self) -> bool:
        """Whether the loss has terms beside the advantage, so that rows without one still count."""
        actor = self.config.actor_rollout_ref.actor
        has_own_terms = self.use_critic or actor.use_kl_loss or actor.entropy_coeff
        return bool(has_own_terms or self.use_teacher_policy)

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._compute_advantage(batch, metrics)
        if not self._knows_rows:
            zero_advantages(batch, self._zeroed_keys)
        return batch

    def _val_metrics_update(
        self,
        data_sources: list,
        sample_uids: list,
        reward_extra_infos_dict: dict[str, list],
        sample_turns: list,
        expected_acc_counts: dict[tuple[str, str], int] | None = None,
    ) -> dict[str, float]:
        """verl's means over the samples that a grader could judge, and how many are left out."""
        graded = select_graded(
            data_sources, sample_uids, reward_extra_infos_dict, expected_acc_counts
        )
        if graded.first_reason:
            print(f"validation: first sample without a verdict: {graded.first_reason}", flush=True)
        metrics = super()._val_metrics_update(
            [data_sources[row] for row in graded.rows],
            [sample_uids[row] for row in graded.rows],
            graded.values,
            [sample_turns[row] for row in graded.rows],
            expected_acc_counts=graded.expected,
        )
        return metrics | graded.metrics

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict, timing_raw: dict, global_steps: int, epoch: int
    ) -> None:
        if not metrics["filters/skipped_update"]:
            super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
            correct_token_rates(
                metrics,
                sampled_tokens=self._sampled_tokens,
                padding_tokens=count_padding_tokens(batch),
            )
            return
        # verl's metrics need fields that only an update computes.
        metrics.update({"training/global_step": global_steps, "training/epoch": epoch})
        metrics.update({f"timing_s/{name}": seconds for name, seconds in timing_raw.items()})


@register_trainer(FILTERED_SYNC_MODE)
@record_trainer
class FilteredSyncTrainer(FilteringTrainer, PPOTrainerSync):
    """verl's ``sync`` trainer with the filters of ``trainer.v1.sync_filtered.filters``.

    Raises:
        ConfigError: a filter or a setting that cannot work, before anything is loaded.
    """

    own_mode = FILTERED_SYNC_MODE

    def __init__(self, config: DictConfig):
        self.filters = load_sync_filters(config)
        check_mini_batches(config)
        check_cluster(config)
        for setting in derive_sync_settings(config):
            print(f"[{FILTERED_SYNC_MODE}] derived {setting}", flush=True)
        # verl compares its mode's name wherever sync differs from the asynchronous modes.
        config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)


# Both trainers are registered with verl together. If this module is what imports verl's trainers,
# the plugin's hook on them leaves that to this line, because the import needs the class above.
import verl_pipeline.verl_adapter.trainers.pipelined_trainer  # noqa: E402, F401
