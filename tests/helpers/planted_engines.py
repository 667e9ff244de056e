"""Weight engines with a planted fault each: the checks of a run's weights must find all of them.

Select one with ``actor_rollout_ref.rollout.checkpoint_engine.custom_backend_module=
tests.helpers.planted_engines`` and ``...checkpoint_engine.backend=<name>``:

* ``planted_corrupt``: one bit of one element of :data:`CORRUPT` changes on its way to every
  replica, after the trainer's fingerprint. The fingerprint finds it at the first sync.
* ``planted_stale``: the last rollout worker loads the weights of its first sync for ever. The
  fingerprint finds it at the second sync.
* ``planted_base``: the trainer sends the weights of its first sync for ever, as a LoRA run does
  that sends the frozen base. What it sends arrives, so only the log-probs can tell.
* ``planted_names``: two tensors of the same shape change names, after the trainer's fingerprint.
"""

from collections.abc import AsyncIterator, Iterator

import torch
from verl.checkpoint_engine.base import CheckpointEngineRegistry

from verl_pipeline.verl_adapter.weights.checkpoint_engine import GlooCheckpointEngine
from verl_pipeline.weight_sync.buckets import BucketHeader
from verl_pipeline.weight_sync.gloo_broadcast import GlooBroadcast

Weights = Iterator[tuple[str, torch.Tensor]]
CORRUPT = "model.layers.1.self_attn.k_proj.weight"
SWAPPED = ("model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight")


def flip_bit(name: str, weight: torch.Tensor) -> torch.Tensor:
    """The lowest bit of one element: of :data:`CORRUPT` only."""
    if name != CORRUPT:
        return weight
    damaged = weight.detach().clone().contiguous()
    bits = {2: torch.int16, 4: torch.int32}[damaged.element_size()]
    damaged.view(-1).view(bits)[7] ^= 1
    return damaged


@CheckpointEngineRegistry.register("planted_corrupt")
class CorruptingEngine(GlooCheckpointEngine):
    async def send_weights(self, weights: Weights, global_steps: int | None = None):
        damaged = ((name, flip_bit(name, weight)) for name, weight in self.observe(weights))
        return await GlooBroadcast.send_weights(self, damaged, global_steps)


@CheckpointEngineRegistry.register("planted_names")
class MisnamingEngine(GlooCheckpointEngine):
    async def send_weights(self, weights: Weights, global_steps: int | None = None):
        other = dict(zip(SWAPPED, reversed(SWAPPED), strict=True))
        swapped = ((other.get(name, name), weight) for name, weight in self.observe(weights))
        return await GlooBroadcast.send_weights(self, swapped, global_steps)


@CheckpointEngineRegistry.register("planted_stale")
class StaleReplicaEngine(GlooCheckpointEngine):
    _first: dict[str, torch.Tensor] | None = None
    _is_first_sync = True

    async def receive_buckets(self) -> AsyncIterator[tuple[BucketHeader, int]]:
        assert self._membership is not None
        rank, world_size, _rendezvous = self._membership
        self._first = {} if self._first is None else self._first
        async for bucket, which in super().receive_buckets():
            for entry in bucket.entries if rank == world_size - 1 else []:
                payload = self.view_payload(entry, which)
                if self._is_first_sync:
                    self._first[entry.name] = payload.clone()
                payload.copy_(self._first[entry.name])
            yield bucket, which
        self._is_first_sync = False


@CheckpointEngineRegistry.register("planted_base")
class FrozenBaseEngine(GlooCheckpointEngine):
    _base: dict[str, torch.Tensor] | None = None

    async def send_weights(self, weights: Weights, global_steps: int | None = None):
        current = {name: weight.detach().clone() for name, weight in weights}
        self._base = self._base or current
        return await super().send_weights(iter(self._base.items()), global_steps)
