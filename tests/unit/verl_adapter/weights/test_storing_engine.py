"""The gloo engine with the store before it: what the trainer has is what every worker loads."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.helpers.patience import wait_until
from tests.unit.weight_sync.test_gloo_broadcast import connect
from verl_pipeline.verl_adapter.weights.checkpoint_engine import GlooCheckpointEngine
from verl_pipeline.weight_sync.buckets import WeightSyncError
from verl_pipeline.weight_sync.version_segment import VersionWriter
from verl_pipeline.weight_sync.version_store import VersionMissing

LIMIT = 2


def make_weights(version):
    generator = torch.Generator().manual_seed(version)
    return {f"w{i}": torch.randn(10, 20, generator=generator) for i in range(7)}


def make_engine(is_master=False, **kwargs):
    kwargs = {"bucket_size": 2000, "timeout_s": 30.0, **kwargs}
    return GlooCheckpointEngine(is_master=is_master, **kwargs)


async def collect(engine, version):
    return {name: weight.clone() async for name, weight in engine.receive_weights(version)}


def assert_loads(worker, version, dtype=torch.float32):
    loaded = asyncio.run(collect(worker, version))
    weights = make_weights(version)
    assert list(loaded) == list(weights)
    assert all(torch.equal(loaded[name], weights[name].to(dtype)) for name in weights)


def send(engine, version):
    return asyncio.run(engine.send_weights(iter(make_weights(version).items()), version))


class Gathered:
    """A trainer's iterator over its tensors, in which all of its ranks take part."""

    def __init__(self, version):
        self.weights = iter(make_weights(version).items())
        self.left = len(make_weights(version))

    def __iter__(self):
        return self

    def __next__(self):
        item = next(self.weights)
        self.left -= 1
        return item


@pytest.fixture
def sender():
    """A sender that stores, a rank that gathers only, and two workers of its node."""
    engines = [make_engine(rank == 0, rollout_dtype="bfloat16") for rank in range(2)]
    paths = [engine.keep_sends(LIMIT, 0.1) for engine in engines]
    assert paths[1] == []
    workers = [make_engine() for _ in range(2)]
    for worker in workers:
        worker.join_store(paths[0], 30.0)
    return *engines, *workers


def test_the_sender_stores_what_it_would_send(sender):
    master, idle, *workers = sender
    for version in (1, 2):
        master.begin_observation("bfloat16")
        report = send(master, version)
        assert report == {"weight_sync/bytes": 7 * 200 * 2, "weight_sync/tensors": 7}
        assert send(idle, version) == {}
        assert list(master.end_observation()) == list(make_weights(version))
    for worker in workers:
        for version in (2, 1):
            assert_loads(worker, version, torch.bfloat16)
    master.drop_version(1)
    idle.drop_version(1)
    with pytest.raises(VersionMissing, match=r"^v_1 is not in this node's .* which holds v_2$"):
        workers[0].receive_weights(1)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_gathers_to_the_end_whatever_becomes_of_storing(sender, rank):
    for version in range(LIMIT):
        send(sender[0], version)
    weights = Gathered(5)
    if rank == 0:
        with pytest.raises(WeightSyncError, match="no place for v_5: v_0, v_1 are stored"):
            asyncio.run(sender[0].send_weights(weights, 5))
    else:
        asyncio.run(sender[1].send_weights(weights, 5))
    assert weights.left == 0


def run_sync(engines, version):
    """The sender sends, and the leader stores; returns what the leader reports."""
    connect(engines, 1)
    _master, leader = engines
    leader.begin_storing(version)
    assert leader.take_stored() is None  # nobody has sent anything
    with ThreadPoolExecutor(1) as pool:
        pool.submit(send, engines[0], version).result(60)
    wait_until(leader._reception.done, 30, "the version")
    report = leader.take_stored()
    assert leader.take_stored() is None
    return report


def test_a_leader_stores_for_the_workers_of_its_node():
    engines = master, leader = make_engine(is_master=True), make_engine()
    worker = make_engine()
    worker.join_store(leader.open_store(LIMIT, 30.0), 30.0)
    for version in (1, 2, 3):
        if version > LIMIT:
            leader.drop_version(version - LIMIT)
        report = run_sync(engines, version)
        assert (report.version, report.nbytes) == (version, 7 * 200 * 4)
        for reader in (leader, worker):
            assert_loads(reader, version)
    assert_loads(worker, 2)


def test_a_leader_that_cannot_store_says_so_and_holds_nobody_up(monkeypatch):
    engines = master, leader = make_engine(is_master=True), make_engine()
    leader.open_store(LIMIT, 30.0)
    add = VersionWriter.add

    def refuse_second(writer, name, weight):
        if name == "w1":
            raise WeightSyncError("no host memory")
        add(writer, name, weight)

    with monkeypatch.context() as patch:
        patch.setattr(VersionWriter, "add", refuse_second)
        with pytest.raises(WeightSyncError, match="no host memory"):
            run_sync(engines, 1)
    run_sync(engines, 2)
    assert_loads(leader, 2)


def test_an_older_version_loads_while_a_newer_one_arrives():
    engines = master, leader = make_engine(is_master=True), make_engine()
    leader.open_store(LIMIT, 30.0)
    run_sync(engines, 1)

    async def load_slowly():
        loaded, connected = {}, False
        async for name, weight in leader.receive_weights(1):
            if not connected:
                await asyncio.to_thread(run_sync, engines, 2)
                connected = True
            loaded[name] = weight.clone()
        return loaded

    loaded = asyncio.run(load_slowly())
    assert all(torch.equal(loaded[name], weight) for name, weight in make_weights(1).items())
    assert_loads(leader, 2)


def test_an_engine_without_a_store_is_as_it_was():
    engines = master, worker = make_engine(is_master=True), make_engine()
    connect(engines, 1)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, master, 1)
        assert_loads(worker, 1)
        sending.result(60)
