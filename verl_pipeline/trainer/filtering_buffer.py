"""Filters inside verl's own ``sync`` trainer, by configuration alone: a replay buffer that drops
what they drop.

    +sync_filters=overlong         # config/sync_filters/overlong.yaml: everything below, as one word

It sits at verl's seam ``trainer.v1.sampler.custom_sampler``, where rewards are known and nothing is
padded yet.

Invariants:
* Only filters that drop are accepted; advantages are computed later, where a buffer has no say.
* The lone survivor of a group leaves too, under a group-relative advantage: its advantage would be
  its raw reward.
* A batch of which nothing is left is replaced by the data loader's next one; after
  :data:`MOST_REPLACED` in a row the run stops, naming the filters.
"""

from collections.abc import Mapping
from typing import Any

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from verl_pipeline.filters import Filter
from verl_pipeline.trainer.batch import keep, look_at
from verl_pipeline.trainer.config import ConfigError, make_filters
from verl_pipeline.trainer.filtering import judge, limits_of

SAMPLER = "trainer.v1.sampler"
SETTINGS = ("filters", "adv_estimator", "rollout", "model")
MOST_REPLACED = 8


def dropping_filters(trainer_mode: str, sampler_kwargs: Mapping[str, Any]) -> list[Filter]:
    """The filters of ``sampler_kwargs``.

    Raises:
        ConfigError: another mode than ``sync``, a setting missing or unknown, or a filter that
            cannot work here.
    """
    if trainer_mode != "sync":
        raise ConfigError(
            f"{SAMPLER}.custom_sampler: works in trainer_mode=sync, not in {trainer_mode}"
        )
    if set(sampler_kwargs) != set(SETTINGS):
        wrong = ", ".join(sorted(set(sampler_kwargs) ^ set(SETTINGS)))
        raise ConfigError(
            f"{SAMPLER}.sampler_kwargs: missing or unknown: {wrong}; +sync_filters=overlong "
            "sets all"
        )
    filters = make_filters(sampler_kwargs["filters"], f"{SAMPLER}.sampler_kwargs.filters")
    for entry in filters:
        if not getattr(entry, "only_drops", False):
            raise ConfigError(
                f"{SAMPLER}.sampler_kwargs.filters: {entry.name} sets advantages to 0, which a "
                "replay buffer cannot; use trainer.v1.trainer_mode=sync_filtered"
            )
    return filters


class FilteringReplayBuffer(ReplayBuffer):
    """verl's replay buffer with filters.

    Args:
        sampler_kwargs: ``filters`` as in ``trainer.v1.one_off_pipeline.filters``; the others of
            :data:`SETTINGS` are the run's own values, which the overlay fills in.

    Raises:
        ConfigError: as :func:`dropping_filters`.
    """

    def __init__(
        self, *args: Any, trainer_mode: str, sampler_kwargs: Mapping[str, Any], **kwargs: Any
    ):
        super().__init__(*args, trainer_mode=trainer_mode, sampler_kwargs=sampler_kwargs, **kwargs)
        self.filters = dropping_filters(trainer_mode, sampler_kwargs)
        self._adv_estimator = sampler_kwargs["adv_estimator"]
        self._sessions = sampler_kwargs["rollout"]["n"]
        self._limits = limits_of(sampler_kwargs["rollout"], sampler_kwargs["model"])

    def sample(
        self, global_steps: int, partition_id: str, batch_size: int
    ) -> tuple[KVBatchMeta, dict]:
        """verl's batch, filtered; validation as it is.

        Raises:
            RuntimeError: too many batches in a row of which nothing was left.
        """
        if partition_id == "val":
            return super().sample(global_steps, partition_id, batch_size)
        for replaced in range(MOST_REPLACED + 1):
            batch, metrics = super().sample(global_steps, partition_id, batch_size)
            seen = look_at(batch, self._limits)
            sizes = dict.fromkeys(seen.view.uids, self._sessions)
            judged = judge(batch, seen.view, self.filters, sizes, self._adv_estimator)
            batch = keep(batch, judged.trained_on)
            if batch.keys:
                return batch, metrics | judged.metrics | {
                    "filters/replaced_batches": float(replaced)
                }
            self.refill_fn(batch_size)
        names = ", ".join(entry.name for entry in self.filters)
        raise RuntimeError(
            f"step {global_steps}: {MOST_REPLACED + 1} batches in a row were filtered away whole, "
            f"by {names}; look at filters/before/* and the response length"
        )
