"""verl's nccl engine with our cast before it: its own code on CPUs, numpy in the place of cupy and
queues in the place of the collective and the socket.
"""

import ast
import asyncio
import importlib
import queue
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from verl import checkpoint_engine
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry

from tests.helpers.patience import scale_deadline, wait_until
from verl_pipeline.verl_adapter.weights import narrowing_checkpoint_engines as ours
from verl_pipeline.verl_adapter.weights.storing_engine import StoringEngine

MODULE = "verl.checkpoint_engine.nccl_checkpoint_engine"
BUCKET = 256


@pytest.fixture
def nccl(monkeypatch):
    """verl's module of the nccl engine, and the registry as it is where cupy is installed."""
    monkeypatch.setattr(CheckpointEngineRegistry, "_registry", {})
    monkeypatch.setitem(sys.modules, "cupy", np)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    module = importlib.import_module(MODULE)
    yield module
    sys.modules.pop(MODULE, None)


class Wire:
    """A group of ranks: everyone gets rank 0's buckets, and rollout ranks their metadata."""

    def __init__(self, ranks):
        self.buckets = {rank: queue.Queue() for rank in ranks if rank > 0}
        self.metadata = {rank: queue.Queue() for rank in ranks if rank > 0}
        self.lengths = {rank: [] for rank in ranks}

    def broadcast(self, bucket, src_rank, group_name):
        rank = int(group_name)  # each engine names its own
        self.lengths[rank].append(len(bucket))
        if rank == src_rank:
            for waiting in self.buckets.values():
                waiting.put(np.array(bucket))
        else:
            sent = self.buckets[rank].get(timeout=scale_deadline(30))
            assert len(sent) == len(bucket), f"rank {rank} expects another bucket"
            bucket[:] = torch.from_numpy(sent)


class Socket:
    def __init__(self, wire, rank):
        self.wire, self.rank = wire, rank

    def send_string(self, *_args, **_kwargs):
        pass

    def send_pyobj(self, metadata):
        for waiting in self.wire.metadata.values():
            waiting.put(metadata)

    def recv_string(self):
        pass

    def recv_pyobj(self):
        return self.wire.metadata[self.rank].get(timeout=scale_deadline(30))


def make_engine(nccl, wire, rank, senders, **kwargs):
    engine = object.__new__(CheckpointEngineRegistry.get("nccl"))
    engine._start_zmq_server = lambda: None
    engine.__init__(BUCKET, group_name=str(rank), is_master=rank == 0, **kwargs)
    engine.rank, engine.num_senders, engine.socket = rank, senders, Socket(wire, rank)
    buffers = [np.zeros(BUCKET, np.uint8) for _half in range(2)]
    engine.send_buf, engine.recv_buf = (
        buffers if rank == 0 else [torch.from_numpy(buffer) for buffer in buffers]
    )
    return engine


def run_sync(nccl, monkeypatch, weights, **kwargs):
    """Rank 0 sends, rank 1 relays, rank 2 is the rollout's, one more gathers only."""
    wire = Wire([0, 1, 2])
    monkeypatch.setattr(nccl.collective, "broadcast", wire.broadcast)
    outcome = {}

    def send(rank):
        engine = make_engine(nccl, wire, rank, 2, **kwargs)
        outcome[rank] = asyncio.run(engine.send_weights(iter(weights.items()), 1))

    async def receive():
        engine = make_engine(nccl, wire, 2, 2, **kwargs)
        return {name: weight.clone() async for name, weight in engine.receive_weights(1)}

    def keep_received():
        outcome[2] = asyncio.run(receive())

    threads = [threading.Thread(target=send, args=[rank], daemon=True) for rank in (0, 1, -1)]
    threads.append(threading.Thread(target=keep_received, daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(scale_deadline(60))
    assert outcome.keys() == {0, 1, 2, -1}
    # A relay takes part in each broadcast of the sender, byte for byte.
    assert wire.lengths[0] == wire.lengths[1]
    return outcome


WEIGHTS = {
    "embedding": torch.randn(30, 7),  # larger than a bucket
    "norm": torch.randn(9),
    "w": torch.randn(6, 5),
    "packed": torch.randint(0, 255, (4, 4), dtype=torch.uint8),
    "half": torch.randn(5, 5).bfloat16(),
}


def test_matrices_travel_in_the_rollouts_dtype(nccl, monkeypatch):
    ours.register_narrowing_engines()
    outcome = run_sync(nccl, monkeypatch, WEIGHTS, rollout_dtype="bfloat16")
    received = outcome[2]
    assert list(received) == list(WEIGHTS)
    for name, weight in WEIGHTS.items():
        wanted = weight.bfloat16() if name in ("embedding", "w") else weight
        assert received[name].dtype == wanted.dtype and torch.equal(received[name], wanted)
    nbytes = 2 * (30 * 7 + 6 * 5 + 5 * 5) + 4 * 9 + 16
    assert outcome[0] == {"weight_sync/bytes": nbytes, "weight_sync/tensors": len(WEIGHTS)}
    assert outcome[1] == outcome[-1] == {}


def test_without_a_dtype_nothing_is_cast(nccl, monkeypatch):
    ours.register_narrowing_engines()
    received = run_sync(nccl, monkeypatch, WEIGHTS)[2]
    assert all(torch.equal(received[name], weight) for name, weight in WEIGHTS.items())


def test_verls_own_engine_still_ignores_the_dtype(nccl, monkeypatch):
    """If verl casts by itself, ours can go."""
    received = run_sync(nccl, monkeypatch, WEIGHTS, rollout_dtype=torch.bfloat16)[2]
    assert received["w"].dtype == torch.float32


def test_an_engine_is_wrapped_once_and_those_that_cast_keep_casting(nccl):
    class Mooncake(CheckpointEngine):
        pass

    CheckpointEngineRegistry.register("mooncake")(Mooncake)
    ours.register_narrowing_engines()
    first = CheckpointEngineRegistry.get("nccl")
    ours.register_narrowing_engines()
    assert CheckpointEngineRegistry.get("nccl") is first
    assert issubclass(first, nccl.NCCLCheckpointEngine)
    assert not first.__abstractmethods__
    mooncake = CheckpointEngineRegistry.get("mooncake")
    assert issubclass(mooncake, Mooncake) and issubclass(mooncake, StoringEngine)
    assert not issubclass(mooncake, ours.NarrowingSender)


def test_a_version_is_stored_and_loaded_again(nccl, monkeypatch):
    """The leader receives through verl's engine; another worker of its node reads."""
    ours.register_narrowing_engines()
    original = StoringEngine.receive_weights

    def receive_by_way_of_the_store(engine, global_steps):
        if engine._versions is None:
            engine.open_store(1, 60.0)
            engine.begin_storing(global_steps)
            wait_until(engine._reception.done, 30, "the version")
            assert engine.take_stored().nbytes == sum(w.nbytes for w in WEIGHTS.values())
        return original(engine, global_steps)

    monkeypatch.setattr(StoringEngine, "receive_weights", receive_by_way_of_the_store)
    received = run_sync(nccl, monkeypatch, WEIGHTS)[2]
    assert list(received) == list(WEIGHTS)
    assert all(torch.equal(received[name], weight) for name, weight in WEIGHTS.items())


@pytest.mark.parametrize("engine", ["NCCL", "NIXL", "HCCL"])
def test_each_engine_takes_what_ours_passes_on(engine):
    """By its source: none of them can be imported here."""
    file = Path(checkpoint_engine.__file__).with_name(f"{engine.lower()}_checkpoint_engine.py")
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef) and node.name == f"{engine}CheckpointEngine":
            methods = {entry.name: entry.args for entry in node.body if hasattr(entry, "args")}
            assigned = ast.unparse(node)
    parameters = {name: [a.arg for a in arguments.args] for name, arguments in methods.items()}
    assert parameters["send_weights"] == ["self", "weights", "global_steps"]
    assert "rollout_dtype" in parameters["__init__"]
    assert "self.rank = rank" in assigned


def test_what_cannot_be_imported_here_is_verls_to_report(monkeypatch):
    monkeypatch.setattr(CheckpointEngineRegistry, "_registry", {})
    ours.register_narrowing_engines()
    with pytest.raises(ValueError, match="Checkpoint engine nccl not registered"):
        CheckpointEngineRegistry.get("nccl")
