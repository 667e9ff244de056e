"""Pools of made-up runs, started by our trainer's and verl's own classes without any process.

What is left out: the workers inside the placement groups, the engines and the load balancer.
"""

import asyncio
import contextlib
import random
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from ray.util.placement_group import PlacementGroup, PlacementGroupID
from verl.single_controller.ray.base import split_resource_pool
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.workers.rollout import replica as verl_replica
from verl.workers.rollout.llm_server import LLMServerManager
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry

from tests.helpers.patience import wait_until
from verl_pipeline.trainer.pipeline_config import ROLLOUT, load_pipeline_config
from verl_pipeline.verl_adapter.placement.ray_cluster import read_nodes
from verl_pipeline.verl_adapter.placement.slot_placement import NodeSlots
from verl_pipeline.verl_adapter.rollout import rollout_servers
from verl_pipeline.verl_adapter.trainers.pipelined_trainer import OneOffPipelineTrainer

ENGINE = "engine_of_no_process"


@dataclass(frozen=True)
class Shape:
    """Pools of (nodes, devices a node); None: the run has no such pool."""

    trainer: tuple[int, int]
    rollout: tuple[int, int]
    tensor_parallel: int
    reward: tuple[int, int] | None = None
    teacher: tuple[int, int] | None = None

    def __str__(self):
        pools = {
            "trainer": self.trainer,
            "rollout": self.rollout,
            "reward": self.reward,
            "teacher": self.teacher,
        }
        sizes = [f"{name} {size[0]}x{size[1]}" for name, size in pools.items() if size]
        return f"{', '.join(sizes)}, TP {self.tensor_parallel}"

    def make_config(self, cluster_s):
        """A configuration with these pools, whatever else it says."""
        overrides = [
            f"trainer.nnodes={self.trainer[0]}",
            f"trainer.n_gpus_per_node={self.trainer[1]}",
            f"{ROLLOUT}.nnodes={self.rollout[0]}",
            f"{ROLLOUT}.n_gpus_per_node={self.rollout[1]}",
            f"{ROLLOUT}.tensor_model_parallel_size={self.tensor_parallel}",
            f"{ROLLOUT}.name={ENGINE}",
            f"trainer.v1.one_off_pipeline.deadlines.cluster_s={cluster_s}",
        ]
        for section, size in (("reward.reward_model", self.reward), ("distillation", self.teacher)):
            if size:
                enabled = "enabled" if section == "distillation" else "enable"
                overrides += [
                    f"{section}.{enabled}=True",
                    f"{section}.nnodes={size[0]}",
                    f"{section}.n_gpus_per_node={size[1]}",
                ]
        overrides.append(f"reward.reward_model.enable_resource_pool={bool(self.reward)}")
        with initialize_config_module("verl_pipeline.config", version_base=None):
            return compose("one_off_pipeline", ["+verl_pipeline=cpu", *overrides])


def draw_shape(rng: random.Random) -> Shape:
    """Any pools of 1 to 3 nodes."""
    rollout = (rng.randint(1, 3), rng.choice([1, 2, 4, 6, 8]))
    total = rollout[0] * rollout[1]
    fitting = [
        size
        for size in (1, 2, 4, 8, 16)
        if total % size == 0 and size % min(size, rollout[1]) == 0 and (size <= 8 or rollout[1] > 1)
    ]
    extra = [None, None, None, (1, 1), (1, 2), (1, 4), (2, 2), (1, 8)]
    return Shape(
        trainer=(rng.randint(1, 3), rng.choice([1, 2, 4, 6, 8])),
        rollout=rollout,
        tensor_parallel=rng.choice(fitting),
        reward=rng.choice(extra),
        teacher=rng.choice(extra),
    )


class Replica(RolloutReplica):
    """verl's replica without an engine."""

    def __init__(self, replica_rank, config, model_config, gpus_per_node=8, **options):
        # A model's configuration would read the model.
        model = OmegaConf.create({"_target_": "verl.workers.config.CheckpointEngineConfig"})
        super().__init__(replica_rank, config, model, gpus_per_node, **options)

    async def launch_servers(self):
        """Nothing to launch."""


class WorkerGroup:
    """Takes the placement groups as verl's worker group does, and starts nothing in them."""

    def __init__(self, resource_pool, bin_pack=True, **_options):
        strategy = "STRICT_PACK" if bin_pack else "PACK"
        resource_pool.get_placement_groups(strategy=strategy)
        self.workers = []


@contextmanager
def no_processes(monkeypatch):
    """verl's classes make placement groups and no process."""

    async def make_no_load_balancer(_manager):
        return None

    with monkeypatch.context() as patch:
        patch.setitem(RolloutReplicaRegistry._registry, ENGINE, lambda: Replica)
        patch.setattr(verl_replica, "RayWorkerGroup", WorkerGroup)
        patch.setattr(rollout_servers, "RayWorkerGroup", WorkerGroup)
        patch.setattr(LLMServerManager, "_init_global_load_balancer", make_no_load_balancer)
        yield


@dataclass
class Started:
    """Placement groups of a run's pools, as verl's classes hold them."""

    trainer: list[PlacementGroup]
    replicas: list[list[PlacementGroup]]
    others: list[PlacementGroup]

    def list_groups(self):
        return [
            *self.trainer,
            *[group for groups in self.replicas for group in groups],
            *self.others,
        ]


def start_ours(shape: Shape, cluster_s: float) -> Started:
    """Our trainer's set-up of the pools, then what verl does with them."""
    trainer = OneOffPipelineTrainer.__new__(OneOffPipelineTrainer)
    trainer.config = shape.make_config(cluster_s)
    trainer.settings = load_pipeline_config(trainer.config)
    trainer._server_start = rollout_servers.ServerStart()
    trainer._enable_hybrid_replicas = False
    trainer._init_resource_pool_mgr()
    trainer.resource_pool_manager.create_resource_pool()
    groups, others = _use_pools(trainer.resource_pool_manager, shape)
    manager = trainer._server_start.wait_for_manager(60.0)
    return Started(groups, [each.resource_pool.pgs for each in manager.get_replicas()], others)


def _use_pools(manager, shape):
    """As verl's worker groups and its managers of reward models and teachers."""
    groups = manager.get_resource_pool(Role.Actor).get_placement_groups()
    others = []
    for role, size in ((Role.RewardModel, shape.reward), (Role.TeacherModel, shape.teacher)):
        if size:
            (pool,) = split_resource_pool(manager.get_resource_pool(role), [size[0] * size[1]])
            others += pool.get_placement_groups()
    return groups, others


def start_verls(shape: Shape, seconds: float, *, replicas_first: bool) -> str:
    """What becomes of verl's own groups: "placed", "split" (one is on several nodes, which is of no
    use to an engine), or "waits" after ``seconds``.

    Args:
        replicas_first: as this package once started them; else last, as verl's separate_async.
    """
    trainer = OneOffPipelineTrainer.__new__(OneOffPipelineTrainer)
    trainer.config = shape.make_config(seconds)
    trainer._enable_hybrid_replicas = False
    done, free = [], read_nodes("GPU", free=True)

    def make_replicas():
        asyncio.run(LLMServerManager(trainer.config)._initialize_llm_servers())

    def make_pools():
        PPOTrainer._init_resource_pool_mgr(trainer)
        trainer.resource_pool_manager.create_resource_pool()
        _use_pools(trainer.resource_pool_manager, shape)

    def run():
        # verl refuses too few free devices; what waits ends when the groups are removed below.
        with contextlib.suppress(ValueError, ray.exceptions.RayError):
            for step in (make_replicas, make_pools)[:: 1 if replicas_first else -1]:
                step()
            done.append(True)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    places = [set(group["bundles_to_node_id"].values()) for group in list_groups().values()]
    outcome = "placed" if all(len(nodes) == 1 for nodes in places) else "split"
    outcome = outcome if done else "waits"
    remove_groups(free)
    thread.join(30.0)
    assert not thread.is_alive()
    remove_groups(free)
    return outcome


def list_groups() -> dict[str, dict]:
    """Placement groups of pools, by id."""
    return {
        key: group
        for key, group in ray.util.placement_group_table().items()
        if group["state"] != "REMOVED" and "verl_group" in group["name"]
    }


def remove_groups(free: list[NodeSlots]) -> None:
    """Remove the placement groups of all pools and wait until ``free`` is free again."""
    while left := list_groups():
        for key in left:
            group_id = PlacementGroupID(bytes.fromhex(key))
            ray.util.remove_placement_group(PlacementGroup(group_id))
        time.sleep(0.05)
    wait_until(lambda: read_nodes("GPU", free=True) == free, 60, "the slots to be free again")
