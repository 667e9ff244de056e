"""Filters inside verl's own ``sync`` trainer, by configuration alone: a replay buffer that drops what they drop.

    +sync_filters=overlong         # config/sync_filters/overlong.yaml: everything below, as one word

It sits at verl's seam ``trainer.v1.sampler.custom_sampler``, where rewards are known and nothing is padded yet.

Invariants:
* Only filters that drop are accepted; advantages are computed later, where a buffer has no say.
* The lone survivor of a group leaves too, under a group-relative advantage: its advantage would be its raw reward.
* A batch of which nothing is left is replaced by the data loader's next one; after :data:`MOST_REPLACED` in a row the
  run stops, naming the filters.
"""

from collections.abc import Mapping
from typing import Any

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils import hf_tokenizer
from verl.utils.fs import copy_to_local

from verl_pipeline.filters import load_filters
from verl_pipeline.filters.truncation import Limits, end_of_sequence_ids
from verl_pipeline.trainer.batch import keep, look_at
from verl_pipeline.trainer.config import ConfigError
from verl_pipeline.trainer.filtering import judge, sessions_by_prompt

SAMPLER = "trainer.v1.sampler"
SETTINGS = ("filters", "adv_estimator", "prompt_length", "response_length", "max_model_len", "model_path")
MOST_REPLACED = 8


class FilteringReplayBuffer(ReplayBuffer):
    """verl's replay buffer with filters.

    Args:
        sampler_kwargs: ``filters`` as in ``trainer.v1.one_off_pipeline.filters``; the others of :data:`SETTINGS` are
            the run's own values, which the overlay fills in.

    Raises:
        ConfigError: another mode than ``sync``, a setting missing or unknown, or a filter that cannot work here.
    """

    def __init__(self, *args: Any, trainer_mode: str, sampler_kwargs: Mapping[str, Any], **kwargs: Any):
        super().__init__(*args, trainer_mode=trainer_mode, sampler_kwargs=sampler_kwargs, **kwargs)
        if trainer_mode != "sync":
            raise ConfigError(f"{SAMPLER}.custom_sampler: works in trainer_mode=sync, not in {trainer_mode}")
        if set(sampler_kwargs) != set(SETTINGS):
            wrong = ", ".join(sorted(set(sampler_kwargs) ^ set(SETTINGS)))
            raise ConfigError(f"{SAMPLER}.sampler_kwargs: missing or unknown: {wrong}; +sync_filters=overlong sets all")
        try:
            self.filters = load_filters(sampler_kwargs["filters"])
        except ValueError as error:
            raise ConfigError(f"{SAMPLER}.sampler_kwargs.filters: {error}") from error
        for entry in self.filters:
            if not entry.only_drops:
                raise ConfigError(
                    f"{SAMPLER}.sampler_kwargs.filters: {entry.name} sets advantages to 0, which a replay buffer "
                    "cannot; use trainer.v1.trainer_mode=sync_filtered"
                )
        self._adv_estimator = sampler_kwargs["adv_estimator"]
        path = copy_to_local(sampler_kwargs["model_path"])
        self._limits = Limits(
            sampler_kwargs["prompt_length"],
            sampler_kwargs["response_length"],
            sampler_kwargs["max_model_len"],
            end_of_sequence_ids(hf_tokenizer(path), path),
        )

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict]:
        """verl's batch, filtered; validation as it is.

        Raises:
            RuntimeError: too many batches in a row of which nothing was left.
        """
        if partition_id == "val":
            return super().sample(global_steps, partition_id, batch_size)
        for replaced in range(MOST_REPLACED + 1):
            batch, metrics = super().sample(global_steps, partition_id, batch_size)
            seen = look_at(batch, self._limits)
            sizes = sessions_by_prompt(batch)
            judged = judge(batch, seen.view, self.filters, sizes, self._adv_estimator)
            batch = keep(batch, judged.kept[~judged.zeroed])
            if batch.keys:
                return batch, metrics | judged.metrics | {"filters/replaced_batches": float(replaced)}
            self.refill_fn(batch_size)
        names = ", ".join(entry.name for entry in self.filters)
        raise RuntimeError(
            f"step {global_steps}: {MOST_REPLACED + 1} batches in a row were filtered away whole, by {names}; look at "
            "filters/before/* and the response length"
        )
