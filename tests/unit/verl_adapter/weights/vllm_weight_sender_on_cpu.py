"""Weights from a gloo sender through our weight sender into verl's own receiver; run by
test_vllm_weight_sender.py.
"""

import asyncio
import threading
import time
from pathlib import Path

import pytest
import torch
import zmq
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver

from tests.unit.weight_sync.test_gloo_broadcast import connect, make
from verl_pipeline.verl_adapter.weights.vllm_weight_sender import InPlaceWeightSender
from verl_pipeline.weight_sync.buckets import WeightSyncError
from verl_pipeline.weight_sync.stored_weights import StoredWeights
from verl_pipeline.weight_sync.version_store import VersionStore


@pytest.fixture
def handle(tmp_path):
    return f"ipc://{tmp_path}/weights.sock"


def receive(handle, syncs, load_s=0.0):
    """What vLLM's worker does; a load copies."""
    loaded = {}

    def load(weights, _is_last):
        time.sleep(load_s)  # meanwhile the next bucket arrives
        loaded.update({name: tensor.clone() for name, tensor in weights})

    for _ in range(syncs):
        BucketedWeightReceiver(handle, torch.device("cpu"), use_shm=True).receive_weights(load)
    return loaded


def test_what_arrives_is_what_was_sent_sync_after_sync(handle):
    sender, receiver = engines = make(1, 1)
    results = []
    vllm = threading.Thread(target=lambda: results.append(receive(handle, 3)))
    vllm.start()
    for version in range(3):
        connect(engines, 1)
        weights = {f"w{i}": torch.randn(100) for i in range(9)} | {"version": torch.tensor(version)}
        send = threading.Thread(
            target=lambda weights=weights: asyncio.run(sender.send_weights(iter(weights.items())))
        )
        send.start()
        asyncio.run(
            InPlaceWeightSender(handle, use_shm=True).async_send_weights(
                receiver.receive_weights(version)
            )
        )
        send.join(30)
        # Mapped at the first sync, nameless since.
        assert not Path("/dev/shm", receiver.segment.name).exists()
    vllm.join(30)
    assert list(results[0]) == list(weights)
    assert all(torch.equal(results[0][name], weights[name]) for name in weights)


def test_a_bucket_stays_until_it_is_loaded(handle):
    """Ten buckets, each loaded long after the next one was sent."""
    sender, receiver = engines = make(1, 1)
    results = []
    vllm = threading.Thread(target=lambda: results.append(receive(handle, 1, load_s=0.1)))
    vllm.start()
    connect(engines, 1)
    weights = {f"w{i}": torch.full((200,), float(i)) for i in range(10)}
    send = threading.Thread(target=lambda: asyncio.run(sender.send_weights(iter(weights.items()))))
    send.start()
    asyncio.run(
        InPlaceWeightSender(handle, use_shm=True).async_send_weights(receiver.receive_weights(1))
    )
    send.join(30)
    vllm.join(30)
    assert all(torch.equal(results[0][name], weights[name]) for name in weights)


def test_a_stored_version_is_loaded_from_where_it_lies(handle):
    store = VersionStore(2, timeout_s=0.1)
    versions = {
        version: {f"w{i}": torch.full((200,), float(version)) for i in range(10)}
        for version in (1, 2, 3)
    }
    results = []

    def load(count):
        for _ in range(count):
            results.append(receive(handle, 1))

    def send(version):
        weights = StoredWeights(store.get(version), 2000, timeout_s=30)
        asyncio.run(InPlaceWeightSender(handle, use_shm=True).async_send_weights(weights))

    vllm = threading.Thread(target=load, args=[4])
    vllm.start()
    for version in (1, 2):
        store.put(version, versions[version].items())
        send(version)
    send(1)
    store.drop(1)
    store.put(3, versions[3].items())  # nobody reads v_1 any more; in its place
    send(3)
    vllm.join(30)
    for loaded, version in zip(results, (1, 2, 1, 3), strict=True):
        assert list(loaded) == list(versions[version])
        assert all(torch.equal(loaded[name], w) for name, w in versions[version].items())


def test_anything_else_goes_verls_way(handle):
    results = []
    vllm = threading.Thread(target=lambda: results.append(receive(handle, 1)))
    vllm.start()
    weights = {"w": torch.randn(5)}
    sender = InPlaceWeightSender(handle, bucket_size_mb=1, use_shm=True)
    asyncio.run(sender.async_send_weights(iter(weights.items())))
    vllm.join(30)
    assert torch.equal(results[0]["w"], weights["w"])


def test_a_worker_that_never_comes_ends_the_wait(handle):
    engines = make(1, 1, timeout_s=1.0)
    connect(engines, 1)
    sender = InPlaceWeightSender(handle, use_shm=True)
    with pytest.raises(WeightSyncError, match="did not take weights in 1 s"):
        asyncio.run(sender.async_send_weights(engines[1].receive_weights(1)))


def test_a_worker_that_never_loads_ends_the_wait(handle):
    engines = make(1, 1, timeout_s=1.0)
    connect(engines, 1)
    with zmq.Context() as context, context.socket(zmq.REP) as silent:
        silent.connect(handle)
        sender = InPlaceWeightSender(handle, use_shm=True)
        with pytest.raises(WeightSyncError, match="did not take weights in 1 s"):
            asyncio.run(sender.async_send_weights(engines[1].receive_weights(1)))


def test_a_cancelled_sync_ends_and_leaves_no_socket(handle):
    engines = make(1, 1, timeout_s=3600.0)
    connect(engines, 1)
    sender = InPlaceWeightSender(handle, use_shm=True)

    async def cancel():
        sending = asyncio.create_task(sender.async_send_weights(engines[1].receive_weights(1)))
        while not Path(handle.removeprefix("ipc://")).exists():
            await asyncio.sleep(0.01)
        sending.cancel()
        await asyncio.wait([sending], timeout=30)
        assert sending.cancelled()

    asyncio.run(cancel())
    assert not Path(handle.removeprefix("ipc://")).exists()
