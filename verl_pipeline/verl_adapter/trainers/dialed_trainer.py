"""The part of the pipelined trainer that measures how old its data is, and turns the dial.

Invariant: what is measured is said once on the console when it is out of bounds, and logged always.
"""

from collections.abc import Mapping

import numpy as np
from transfer_queue import KVBatchMeta

from verl_pipeline.number_formats import format_percent
from verl_pipeline.trainer.off_policy import EFFECTIVE, RowDivergence, measure_divergence
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, TRAINER_MODE
from verl_pipeline.trainer.run_dial import RunDial
from verl_pipeline.verl_adapter.trainers.weight_sending_trainer import WeightSendingTrainer


class DialedTrainer(WeightSendingTrainer):
    """A subclass has the settings and the dial before verl's constructor runs."""

    dial: RunDial
    _has_warned = False

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._compute_old_log_prob(batch, metrics)
        columns = self._statistics
        if columns is not None and "log_ratio" in columns:
            sums = {
                name: columns[column].double().numpy()
                for name, column in (
                    ("ratios", "ratio"),
                    ("squares", "ratio_squared"),
                    ("divergences", "k3"),
                )
            }
            oldest = np.array([tag["min_global_steps"] for tag in batch.tags], dtype=np.int64)
            tokens = columns["count"].long().numpy()
            found = measure_divergence(
                RowDivergence(self.global_steps - 1 - oldest, tokens, **sums)
            )
            metrics.update(found)
            self._warn_of_old_data(found)
        return batch

    def _warn_of_old_data(self, found: Mapping[str, float]) -> None:
        share, least = found.get(EFFECTIVE, 1.0), self.settings.min_effective_share
        if share >= least or self._has_warned:
            return
        self._has_warned = True
        print(
            f"[{TRAINER_MODE}] warning: step {self.global_steps}: the effective sample size of the "
            f"importance weights is {format_percent(share, 1)} of the tokens, below {PIPELINE_KEY}."
            f"min_effective_share={least:g}: the weights that sampled are far from those that "
            f"train. Lower the staleness (now {self.dial.current.staleness}) or the learning rate, "
            f"and watch {EFFECTIVE} (said once)",
            flush=True,
        )

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict, timing_raw: dict, global_steps: int, epoch: int
    ) -> None:
        found, sentence = self.dial.end_step(global_steps, metrics, timing_raw)
        metrics.update(found)
        if sentence is not None:
            print(f"[{TRAINER_MODE}] {sentence}", flush=True)
        # Past the barrier `gen` is the trainer's wait for the rest of its batch.
        dial = self.dial.current
        is_sampled_ahead = dial.has_barrier and dial.staleness > 0
        timers, ours = self.step_clock.split(timing_raw, is_sampled_ahead=is_sampled_ahead)
        metrics.update(ours)
        super()._compute_metrics(batch, metrics, timers, global_steps, epoch)
