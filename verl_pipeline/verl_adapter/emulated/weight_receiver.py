"""Takes weights for the rollout pool: verl's way of them is real, their time is emulated.

Invariants:
* Colocated, they take the profile's switch; between pools, publication and load.
* The version that the server tells afterwards is the one that verl sent.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any

import ray
import torch
from torch.distributed.device_mesh import DeviceMesh
from verl.workers.config import HFModelConfig, RolloutConfig
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.utils import ensure_async_iterator

from verl_pipeline.emulated.journal import Journal
from verl_pipeline.verl_adapter.emulated.plugin import load_run
from verl_pipeline.verl_adapter.emulated.rollout_replica import name_server

Weights = Iterable[tuple[str, torch.Tensor]] | AsyncIterator[tuple[str, torch.Tensor]]


class EmulatedWeightReceiver(BaseRollout):
    """verl's adapter of a rollout engine.

    Args:
        device_mesh: of the colocated trainer; None in a process of its own.
        replica_rank: of the server; -1: the only one.
    """

    def __init__(
        self,
        config: RolloutConfig,
        model_config: HFModelConfig,
        device_mesh: DeviceMesh | None,
        replica_rank: int = -1,
    ):
        super().__init__(config, model_config, device_mesh)  # type: ignore[arg-type]
        self.replica_rank = max(replica_rank, 0)
        self.is_leader_rank = True
        self._is_colocated = device_mesh is not None
        self._run = load_run()
        self._clock = self._run.open_clock()
        self._journal = Journal(self._run.journal, "weights")
        self._server: Any = None

    async def resume(self, tags: list[str]) -> None:
        """The server wakes with its weights."""

    async def release(self) -> None:
        """verl lets the server itself sleep."""

    async def update_weights(
        self,
        weights: Weights,
        wire_format: str = "named_tensors",
        global_steps: int | None = None,
        **_kwargs: Any,
    ) -> None:
        """Receive weights, and take their time."""
        async for _name, _tensor in ensure_async_iterator(weights):
            pass
        if self._run.flows:
            return  # published; each replica loads by itself
        costs = self._run.cluster.weights
        kinds = {"publish": costs.publish_s, "load": costs.load_s}
        if self._is_colocated:
            kinds = {"switch": costs.switch_s}
        # Whoever sends weights has waited for all that had to end before.
        start = self._clock.begin_drivers()
        for kind, seconds in kinds.items():
            await self._clock.wait(start + seconds)
            self._journal.add(kind, "weights", start, start + seconds)
            start += seconds
        self._clock.times.driver_time = start
        if self._server is None:  # it starts after this adapter
            self._server = ray.get_actor(name_server(self.replica_rank))
        await self._server.take_weights.remote(global_steps, self._is_colocated)
