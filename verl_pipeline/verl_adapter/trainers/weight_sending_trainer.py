"""The part of the pipelined trainer that sends weights, checks what the replicas hold, and logs it.

Invariant: the comparison sees the log-probs that the update uses, before it uses them.
"""

from functools import cached_property
from typing import Any

from transfer_queue import KVBatchMeta
from verl.utils.debug import marked_timer

from verl_pipeline.trainer.pipeline_config import OneOffPipelineConfig
from verl_pipeline.trainer.step_metrics import StepClock, add_weight_sync
from verl_pipeline.verl_adapter.rollout.dispatched_pool import DispatchedPool
from verl_pipeline.verl_adapter.rollout.log_prob_check import LogProbCheck
from verl_pipeline.verl_adapter.rollout.rollout_pool import RolloutPool
from verl_pipeline.verl_adapter.trainers.filtering_trainer import FilteringTrainer


class WeightSendingTrainer(FilteringTrainer):
    """A subclass has the settings and, once verl has set it up, the rollout pool.

    Attributes:
        step_metrics, step_clock: of the step that runs.
    """

    settings: OneOffPipelineConfig
    rollout_pool: RolloutPool
    step_metrics: dict[str, Any]
    step_clock: StepClock

    def load_first_weights(self, version: int) -> None:
        """Let every replica hold v_version before the run begins."""
        self.rollout_pool.load_first(version)

    def send_weights(self, version: int) -> None:
        """Of the schedule: load v_version into the pool, which is drained."""
        if self.rollout_pool.version == version:
            return
        with marked_timer("update_weights", self.step_clock.events, color="red"):
            sync = self.rollout_pool.send_weights(version)
        add_weight_sync(self.step_metrics, sync)

    def publish_weights(self, version: int) -> None:
        """Of the schedule: let each replica load v_version by itself."""
        assert isinstance(self.rollout_pool, DispatchedPool)
        with marked_timer("update_weights", self.step_clock.events, color="red"):
            sync = self.rollout_pool.publish_weights(version)
        add_weight_sync(self.step_metrics, sync)
        self.step_metrics.update(self.rollout_pool.take_metrics())

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
