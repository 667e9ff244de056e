"""Start and end of the rollout servers' processes.

Invariants:
* Servers that were started are ended in order, also when the start of the trainer fails. Ray kills
  a server together with its children, and vLLM's shared memory (hundreds of MB a replica) would
  stay behind.
* A replica starts in the placement groups that were reserved for it
  (:mod:`.placement.reserved_pools`), and shares no socket with another run on its machine.
"""

import asyncio
import logging
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from typing import Any

import ray
from omegaconf import DictConfig
from ray.util.placement_group import PlacementGroup
from verl.single_controller.ray import RayResourcePool, RayWorkerGroup
from verl.utils.device import get_device_name
from verl.workers.rollout.llm_server import LLMServerManager
from verl.workers.rollout.replica import RolloutMode, RolloutReplica

from verl_pipeline.trainer.deadlines import DeadlineExceeded
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, load_pipeline_config
from verl_pipeline.verl_adapter.placement.ray_slots import CPUS_PER_ROLLOUT_DEVICE
from verl_pipeline.verl_adapter.rollout.dispatcher import start_dispatcher
from verl_pipeline.verl_adapter.rollout.replica_ports import make_ports
from verl_pipeline.verl_adapter.rollout.versioned_replica import version_servers
from verl_pipeline.verl_adapter.rollout.weight_sockets import (
    name_sender_sockets,
    name_server_sockets,
)
from verl_pipeline.verl_adapter.telemetry.run_target import make_target

logger = logging.getLogger(__name__)

# Longest time for vLLM to end its engine processes, in seconds.
CLOSE_S = 20.0


class PlacedServerManager(LLMServerManager):
    """verl's manager, with replicas that start in reserved placement groups.

    Args:
        config: verl's configuration.
        replicas: the groups of each replica, one a node.
    """

    rollout_replica_class: type[RolloutReplica]

    def __init__(self, config: DictConfig, replicas: list[list[PlacementGroup]]):
        super().__init__(config)
        self._config, self._settings, self._places = config, load_pipeline_config(config), replicas
        replica_class = self.rollout_replica_class  # verl's hook for recipes
        if not self._settings.dial.has_barrier and self.rollout_config.name == "vllm":
            replica_class = version_servers(replica_class)
        self.rollout_replica_class = place_replicas(replica_class, replicas)

    def place_replica(self, rank: int, groups: list[PlacementGroup]) -> None:
        """Let replica ``rank`` start in these groups; the next rank is a new one."""
        self._places[rank : rank + 1] = [groups]

    def make_replica(self, rank: int, start: int) -> RolloutReplica:
        """A replica that has not started: a new one, or in the place of one that has ended.

        Args:
            start: how often it starts again with this, for names.
        """
        replica = self.rollout_replica_class(
            replica_rank=rank,
            config=self.rollout_config,
            model_config=self.model_config,
            gpus_per_node=self.rollout_config.n_gpus_per_node,
        )
        replica.start = start
        return replica

    async def _init_global_load_balancer(self) -> None:
        """verl's with a barrier; past it our dispatcher."""
        settings = self._settings
        if settings.dial.has_barrier:
            return await super()._init_global_load_balancer()
        ports = make_ports(self, settings)
        slots = settings.slots or int(self.rollout_config.max_num_seqs)
        self.global_load_balancer = start_dispatcher(
            ports, slots, settings.weight_sync_mode, make_target(self._config)
        )


def place_replicas(
    replica_class: type[RolloutReplica], replicas: list[list[PlacementGroup]]
) -> type[RolloutReplica]:
    """``replica_class`` with replicas that start in these groups, by rank."""
    run = uuid.uuid4().hex[:12]  # short: the path of a socket may have 107 bytes

    class PlacedReplica(replica_class):  # type: ignore[valid-type,misc]
        """A replica that finds its placement groups.

        Attributes:
            start: how often it has started again.
        """

        start = 0

        async def init_standalone(self) -> None:
            """verl's, but for the pool, which verl would make here."""
            self.rollout_mode = RolloutMode.STANDALONE
            rank = f"{self.replica_rank}{self.name_suffix}"
            self.resource_pool = RayResourcePool(
                process_on_nodes=[self.gpus_per_replica_node] * self.nnodes,
                max_colocate_count=CPUS_PER_ROLLOUT_DEVICE,
                name_prefix=f"rollout_pool_{rank}",
            )
            self.resource_pool.pgs = replicas[self.replica_rank]
            # Workers of an earlier start may live on, with their names.
            again = f"_start_{self.start}" if self.start else ""
            worker_group = RayWorkerGroup(
                resource_pool=self.resource_pool,
                ray_cls_with_init=self.get_ray_class_with_init_args(),
                bin_pack=False,
                name_prefix=f"rollout_standalone_{rank}{again}",
                use_gpu=True,
                device_name=get_device_name(),
            )
            self.workers = worker_group.workers
            name_server_sockets(self, run)
            await asyncio.gather(*name_sender_sockets(self, run))
            await self.launch_servers()

    return PlacedReplica


class ServerStart:
    """Rollout servers that start in the background, while the trainer starts its own engines."""

    _manager: Future[LLMServerManager] | None = None

    def start_servers(self, config: DictConfig, replicas: list[list[PlacementGroup]]) -> None:
        """Start the servers in these groups; returns at once."""
        executor = ThreadPoolExecutor(max_workers=1)
        self._manager = executor.submit(PlacedServerManager.create, config, replicas)

    def wait_for_manager(self, seconds: float) -> LLMServerManager:
        """The manager of the running servers.

        Raises:
            DeadlineExceeded: they were not ready after ``seconds``.
        """
        assert self._manager is not None, "begin() comes first"
        try:
            return self._manager.result(timeout=seconds)
        except FutureTimeout as error:
            raise DeadlineExceeded(
                f"start of the rollout servers: not ready {seconds:g} s after the trainer was; "
                "look at the logs of the vLLM servers in Ray's session folder, or raise "
                f"{PIPELINE_KEY}.deadlines.start_s for a large model"
            ) from error

    @contextmanager
    def end_servers_on_error(self):
        """On any error inside, end the servers that were begun before the error is raised."""
        try:
            yield
        except BaseException:
            if self._manager is not None:
                try:
                    end_engines(self._manager.result(timeout=CLOSE_S))
                except Exception:
                    # The first error is the cause, and must be the one that is shown.
                    logger.exception("the rollout servers could not be ended in order")
            raise


def end_engines(manager: LLMServerManager) -> None:
    """End the inference engines, so that they free what they share with their workers."""
    servers = [server for replica in manager.get_replicas() for server in replica.servers]
    ended = [server.__ray_call__.remote(_end_engine) for server in servers]
    ray.wait(ended, num_returns=len(ended), timeout=2 * CLOSE_S)


def _end_engine(server: Any) -> None:
    """Runs in the server's process."""
    engine = getattr(server, "engine", None)
    if engine is not None and hasattr(engine, "shutdown"):
        engine.shutdown(timeout=CLOSE_S)
