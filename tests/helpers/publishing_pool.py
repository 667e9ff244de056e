"""Trainer ranks, rollout workers and servers of a few tensors, as Ray actors: gloo, the store of
versions and verl's worker are real, the engine is a dictionary.
"""

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

import ray
import torch
from omegaconf import OmegaConf
from verl.checkpoint_engine.base import CheckpointEngineRegistry, CheckpointEngineWorker
from verl.workers.config import CheckpointEngineConfig

import verl_pipeline.verl_adapter.weights.checkpoint_engine  # noqa: F401  (registers gloo)
from verl_pipeline.trainer.pipeline_config import Deadlines
from verl_pipeline.verl_adapter.weights.held_weights import make_answer
from verl_pipeline.verl_adapter.weights.publication import WeightPublisher
from verl_pipeline.verl_adapter.weights.weight_extension import EXTENSION
from verl_pipeline.weight_sync.fingerprint import fingerprint_tensor
from verl_pipeline.weight_sync.version_segment import VersionWriter

BUCKET = 1 << 12
TENSORS = 9


def make_weights(version):
    """About three buckets, different for each version."""
    generator = torch.Generator().manual_seed(version)
    return {f"w{i}": torch.randn(15, 20, generator=generator) for i in range(TENSORS)}


class TrainerRank:
    """What verl's ActorRolloutRefWorker does for a weight sync."""

    def __init__(self, rank, timeout_s, is_local):
        self.engine = CheckpointEngineRegistry.new(
            "gloo", bucket_size=BUCKET, is_master=rank == 0, timeout_s=timeout_s
        )
        if not is_local:
            self.engine.find_node = lambda: "another node"

    def list_stored(self):
        return self.engine._versions.list_versions()

    def execute_checkpoint_engine(self, method, *args, **kwargs):
        return getattr(self.engine, method)(*args, **kwargs)

    async def update_weights(self, version):
        return await self.engine.send_weights(iter(make_weights(version).items()), version) or {}


class TrainerGroup:
    """verl's worker group of them, on the replicas' node or, as far as they tell, on another."""

    def __init__(self, ranks, timeout_s=60.0, is_local=True):
        actor = ray.remote(num_cpus=0)(TrainerRank)
        self.workers = [actor.remote(rank, timeout_s, is_local) for rank in range(ranks)]
        self.world_size = ranks

    def execute_checkpoint_engine(self, method, *args, **kwargs):
        return [
            worker.execute_checkpoint_engine.remote(
                method[i], *(a[i] for a in args), **{key: kwargs[key][i] for key in kwargs}
            )
            for i, worker in enumerate(self.workers)
        ]

    def update_weights(self, global_steps, mode):
        return [worker.update_weights.remote(global_steps) for worker in self.workers]


class Adapter:
    """verl's server adapter: takes the tensors one by one, when it may."""

    def __init__(self, server):
        self.server = server
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.taken = 0

    async def update_weights(self, weights, global_steps, wire_format):
        loaded = {}
        self.taken = 0
        async for name, tensor in weights:
            loaded[name] = tensor.clone()
            self.taken += 1
            await self.may_go_on.wait()
        await self.server.load.remote(loaded, global_steps)


class RolloutWorker(CheckpointEngineWorker):
    """verl's, without the process group that other engines need."""

    def __init__(self, server, timeout_s, node):
        self.checkpoint_engine = CheckpointEngineRegistry.new(
            "gloo", bucket_size=BUCKET, timeout_s=timeout_s
        )
        self.server_adapter = Adapter(server)
        if node is not None:
            self.checkpoint_engine.find_node = lambda: node

    async def stop_loading(self):
        self.server_adapter.may_go_on.clear()

    async def go_on_loading(self):
        self.server_adapter.may_go_on.set()

    async def count_taken(self):
        return self.server_adapter.taken

    async def damage(self, version):
        """Flip a bit of what this node stores of ``version``."""
        with self.checkpoint_engine._versions.get(version) as stored:
            stored.memory[stored.entries[4].offset + 5] ^= 1

    async def has_named_memory(self):
        """Whether memory of this worker would stay behind if all processes were killed."""
        segment = self.checkpoint_engine.segment
        return segment is not None and Path("/dev/shm", segment.name).exists()

    async def die_at_next_tensor(self):
        """As if the machine ran out of memory when the next version is stored."""
        VersionWriter.add = lambda *_arguments: os.kill(os.getpid(), signal.SIGKILL)

    async def list_stored(self):
        return self.checkpoint_engine._versions.list_versions()


class Server:
    """A replica's server, whose engine holds what its worker loaded last."""

    def __init__(self):
        self.held, self.version = {}, None
        self.engine = self
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        self._server_task = self
        self.get_loop = lambda: loop

    async def load(self, weights, version):
        self.held, self.version = weights, version

    async def get_held(self):
        return self.version, self.held

    async def collective_rpc(self, method, args):
        names, dtype = args
        parts = []
        for name in names:
            found = fingerprint_tensor(self.held[name], getattr(torch, dtype))
            parts.append([name, [name], f"{found.digest:x}", found.total, found.dtype])
        return [make_answer(parts)]


class Replica:
    def __init__(self, workers=1, timeout_s=60.0, node=None):
        self.servers = [ray.remote(num_cpus=0)(Server).remote()]
        actor = ray.remote(num_cpus=0)(RolloutWorker)
        self.workers = [actor.remote(self.servers[0], timeout_s, node) for _ in range(workers)]


class Manager:
    """verl's, of replicas whose HTTP servers nobody runs."""

    def __init__(self, replicas):
        self.replicas = replicas

    def get_replicas(self):
        return self.replicas

    def get_addresses(self):
        return ["127.0.0.1:1"] * len(self.replicas)


def make_publisher(replicas, group, *, versions=3, syncs=0, **deadlines):
    """A publisher of real weights; ``syncs`` of its publications are fingerprinted."""
    rollout = {
        "dtype": "float32",
        "load_format": "auto",
        "name": "vllm",
        "engine_kwargs": {"vllm": {"worker_extension_cls": EXTENSION}},
        "checkpoint_engine": {
            "_target_": f"{CheckpointEngineConfig.__module__}.CheckpointEngineConfig",
            "backend": "gloo",
            "custom_backend_module": "verl_pipeline.verl_adapter.weights.checkpoint_engine",
        },
    }
    check = {"fingerprint_syncs": syncs, "fingerprint_every": 0}
    config = OmegaConf.create(
        {
            "actor_rollout_ref": {"rollout": rollout, "model": {"path": "/nowhere"}},
            "trainer": {"v1": {"one_off_pipeline": {"weight_check": check}}},
        }
    )
    return WeightPublisher(
        config, group, Manager(replicas), Deadlines(**deadlines), versions, lambda: None
    )


def get_held(replica):
    """Version and tensors that a replica's engine holds."""
    return ray.get(replica.servers[0].get_held.remote())


def wait_for_tensor(worker):
    """Until a load that was stopped has begun."""
    deadline = time.monotonic() + 120
    while not ray.get(worker.count_taken.remote()):
        assert time.monotonic() < deadline, "no load begins"
        time.sleep(0.01)
