"""The part of the pipelined trainer that checks the replicas' weights, and logs what it checked.

Invariant: the comparison sees the log-probs that the update uses, before it uses them.
"""

from functools import cached_property

from transfer_queue import KVBatchMeta

from verl_pipeline.trainer.pipeline_config import OneOffPipelineConfig
from verl_pipeline.verl_adapter.rollout.log_prob_check import LogProbCheck
from verl_pipeline.verl_adapter.rollout.rollout_pool import RolloutPool
from verl_pipeline.verl_adapter.trainers.filtering_trainer import FilteringTrainer


class WeightCheckingTrainer(FilteringTrainer):
    """A subclass has the settings and, once verl has set it up, the rollout pool."""

    settings: OneOffPipelineConfig
    rollout_pool: RolloutPool

    @cached_property
    def log_prob_check(self) -> LogProbCheck:
        """The comparison with the replicas, of the whole run."""
        return LogProbCheck(self.config, self.settings, self.rollout_pool)

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        batch = super()._step_once(metrics, timing_raw, sample_batch_size)
        if metrics.get("filters/skipped_update"):
            metrics.update(self.rollout_pool.fingerprints.take_metrics())
            self.log_prob_check.drop()
        return batch

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._compute_old_log_prob(batch, metrics)
        metrics.update(self.rollout_pool.fingerprints.take_metrics())
        metrics.update(self.log_prob_check.compare(self.global_steps, batch.keys))
        return batch
