"""Filters inside verl's own ``sync`` trainer, by configuration alone.

    +sync_filters=overlong         # config/sync_filters/overlong.yaml sets everything below

The replay buffer sits at verl's seam ``trainer.v1.sampler.custom_sampler``, where rewards are known
and nothing is padded yet.

Invariants:
* Only filters that drop rows are accepted: verl computes advantages later, out of reach.
* Under a group-relative advantage the lone survivor of a group is dropped too: its advantage would
  be its raw reward.
* A trajectory without a reward counts in no validation mean of verl's; verl counts it among the
  answers that are missing.
* If the filters drop a whole batch, the data loader's next batch replaces it. After
  :data:`MAX_REPLACED` in a row the run stops and names the filters.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from verl_pipeline.filters.filter_chain import apply_filters
from verl_pipeline.verl_adapter.checks.config_checks import load_drop_only_filters
from verl_pipeline.verl_adapter.trainers.filtering_trainer import GROUP_RELATIVE, read_length_limits
from verl_pipeline.verl_adapter.trajectories.trajectory_store import (
    VALIDATION,
    drop_rows,
    read_trajectories,
)

MAX_REPLACED = 8


class FilteringReplayBuffer(ReplayBuffer):
    """verl's replay buffer with filters.

    Args:
        sampler_kwargs: ``filters`` as in ``trainer.v1.one_off_pipeline.filters``. The overlay fills
            in the rest from the run's own settings
            (:data:`verl_pipeline.verl_adapter.checks.config_checks.FILTERING_SETTINGS`).

    Raises:
        ConfigError: as :func:`~.checks.config_checks.load_drop_only_filters`.
    """

    def __init__(
        self, *args: Any, trainer_mode: str, sampler_kwargs: Mapping[str, Any], **kwargs: Any
    ):
        super().__init__(*args, trainer_mode=trainer_mode, sampler_kwargs=sampler_kwargs, **kwargs)
        self.filters = load_drop_only_filters(trainer_mode, sampler_kwargs)
        self._adv_estimator = sampler_kwargs["adv_estimator"]
        self._group_size = sampler_kwargs["rollout"]["n"]
        self._limits = read_length_limits(sampler_kwargs["rollout"], sampler_kwargs["model"])

    def sample(
        self, global_steps: int, partition_id: str, batch_size: int
    ) -> tuple[KVBatchMeta, dict]:
        """verl's batch, filtered; of a validation batch, what has a reward.

        Raises:
            RuntimeError: the filters dropped too many whole batches in a row, or no trajectory of a
                validation batch has a reward.
        """
        if partition_id == VALIDATION:
            batch, metrics = super().sample(global_steps, partition_id, batch_size)
            return self._drop_ungraded(batch), metrics
        for replaced in range(MAX_REPLACED + 1):
            batch, metrics = super().sample(global_steps, partition_id, batch_size)
            trajectories = read_trajectories(batch, self._limits)
            group_sizes = dict.fromkeys(trajectories.view.uids, self._group_size)
            filtered = apply_filters(
                self.filters,
                trajectories.view,
                group_sizes if self._adv_estimator in GROUP_RELATIVE else None,
            )
            batch = drop_rows(batch, filtered.trained_rows)
            if batch.keys:
                metrics |= filtered.metrics | {"filters/replaced_batches": float(replaced)}
                return batch, metrics
            self.refill_fn(batch_size)
        names = ", ".join(entry.name for entry in self.filters)
        raise RuntimeError(
            f"step {global_steps}: the filters ({names}) dropped {MAX_REPLACED + 1} whole batches "
            "in a row; look at filters/before/* and the response length"
        )

    def _drop_ungraded(self, batch: KVBatchMeta) -> KVBatchMeta:
        """Name and drop what would turn the means of a validation into NaN."""
        trajectories = read_trajectories(batch, self._limits)
        kept = np.flatnonzero(~np.isnan(trajectories.view.rewards))
        ungraded = sorted(set(range(len(batch.keys))) - set(kept.tolist()))
        if not ungraded:
            return batch
        first = trajectories.reward_reports[ungraded[0]].get("reason", "it is not a finite number")
        counts = [
            len({key.rsplit("_", 1)[0] for key in keys})
            for keys in ([batch.keys[row] for row in ungraded], batch.keys)
        ]
        message = (
            f"validation: {counts[0]} of {counts[1]} trajectories have no reward; first: "
            f"{batch.keys[ungraded[0]]}: {first}"
        )
        if not len(kept):
            raise RuntimeError(message)
        print(message, flush=True)
        return drop_rows(batch, kept)
