"""The gloo checkpoint engine over real gloo groups; the sides are threads of one process."""

import asyncio
import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.patience import scale_deadline, wait_until
from verl_pipeline.weight_sync import shared_segment
from verl_pipeline.weight_sync.buckets import WeightSyncError
from verl_pipeline.weight_sync.gloo_broadcast import GlooBroadcast

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8]


def connect(engines, actors):
    """What verl's manager does at each sync: prepare all, build the topology, join the group
    together.
    """
    metadata = [engine.prepare() for engine in engines]
    actor, rollout = GlooBroadcast.build_topology(actors, len(engines) - actors, metadata)
    arguments = [{key: actor[key][rank] for key in actor} for rank in range(actors)]
    arguments += [
        {key: rollout[key][rank] for key in rollout} for rank in range(len(engines) - actors)
    ]
    with ThreadPoolExecutor(len(engines)) as pool:
        list(
            pool.map(
                lambda pair: pair[0].init_process_group(**pair[1]),
                zip(engines, arguments, strict=True),
            )
        )


async def _collect(engine):
    return {name: weight.clone() async for name, weight in engine.receive_weights(1)}


def sync(engines, actors, weights):
    """One sync; returns the sender's metrics and what each receiver got."""
    connect(engines, actors)
    with ThreadPoolExecutor(len(engines)) as pool:
        sent = [
            pool.submit(
                lambda engine=engine: asyncio.run(engine.send_weights(iter(weights.items())))
            )
            for engine in engines[:actors]
        ]
        received = [
            pool.submit(lambda engine=engine: asyncio.run(_collect(engine)))
            for engine in engines[actors:]
        ]
        results = [future.result(60) for future in [*sent, *received]]
    for engine in engines:
        engine.finalize()
    return results[0], results[actors:]


def make(actors, rollouts, **kwargs):
    kwargs = {"bucket_size": 1024, "timeout_s": 30.0, "checksum": True, **kwargs}
    return [GlooBroadcast(is_master=rank == 0, **kwargs) for rank in range(actors + rollouts)]


def random_weights(shapes):
    torch.manual_seed(0)
    return {
        f"layer.{index}": (torch.randn(shape) * 50).to(DTYPES[kind])
        for index, (shape, kind) in enumerate(shapes)
    }


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 11), min_size=0, max_size=2), st.integers(0, len(DTYPES) - 1)
        ),
        min_size=1,
        max_size=24,
    )
)
def test_every_tensor_arrives_whatever_its_size(shapes):
    """Tensors in one and in many buckets, empty ones and scalars included, bit by bit."""
    weights = random_weights(shapes)
    metrics, received = sync(make(1, 1), 1, weights)
    assert list(received[0]) == list(weights)
    for name, weight in weights.items():
        assert received[0][name].dtype == weight.dtype
        assert torch.equal(received[0][name], weight)
    assert metrics["weight_sync/tensors"] == len(weights)
    assert metrics["weight_sync/bytes"] == sum(weight.nbytes for weight in weights.values())


def test_a_tensor_larger_than_a_bucket_is_refused_by_name():
    sender, receiver = engines = make(1, 1)
    connect(engines, 1)
    with pytest.raises(WeightSyncError, match="w has 0 MiB.*update_weights_bucket_megabytes"):
        asyncio.run(sender.send_weights(iter([("w", torch.zeros(1025, dtype=torch.uint8))])))


def test_trainer_ranks_that_do_not_send_hold_no_buckets_and_rollout_workers_shared_ones():
    sender, idle, receiver = engines = make(2, 1)
    connect(engines, 2)
    assert [len(engine._buckets) for engine in engines] == [2, 0, 2]
    path = Path("/dev/shm") / receiver.segment.name
    assert (
        path.stat().st_size == 2 * receiver.bucket_size and sender.segment is idle.segment is None
    )
    del engines, receiver
    gc.collect()
    assert not path.exists()


def test_no_room_in_shared_memory_is_said_before_it_kills():
    room = os.statvfs("/dev/shm")
    with pytest.raises(
        WeightSyncError, match="/dev/shm has no room for .*update_weights_bucket_megabytes"
    ):
        # More than all of it: refused before a page is taken.
        shared_segment.create_segment((room.f_blocks + 1) * room.f_frsize, owner=set())


def test_the_memory_of_a_killed_rollout_worker_goes_too():
    code = (
        "import os, signal; from verl_pipeline.weight_sync import shared_segment; owner = set();"
        "print(shared_segment.create_segment(128, owner).name, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=scale_deadline(120)
    )
    path = Path("/dev/shm") / run.stdout.strip()
    assert path.name.startswith(shared_segment.SEGMENT_PREFIX)
    # Python's resource tracker outlives the process it tracks.
    wait_until(lambda: not path.exists(), 20, "the segment to be removed")


def test_two_trainer_ranks_two_replicas_three_syncs():
    engines = make(2, 2, bucket_size=4096)
    for version in range(3):
        weights = {"w": torch.full((700,), float(version)), "b": torch.arange(5)}
        _metrics, received = sync(engines, 2, weights)
        for got in received:
            assert all(torch.equal(got[name], weights[name]) for name in weights)


def test_matrices_travel_in_the_rollouts_dtype():
    weights = {"w": torch.randn(2, 5), "b": torch.randn(2), "i": torch.arange(3)}
    metrics, (got,) = sync(make(1, 1, rollout_dtype="bfloat16"), 1, weights)
    assert got["w"].dtype == torch.bfloat16 and torch.equal(got["w"], weights["w"].bfloat16())
    assert torch.equal(got["b"], weights["b"]) and torch.equal(got["i"], weights["i"])
    assert metrics["weight_sync/bytes"] == 10 * 2 + 2 * 4 + 3 * 8


class Damaging(GlooBroadcast):
    async def _receive_bucket(self, buffer):
        bucket = await super()._receive_bucket(buffer)
        buffer[3] ^= 1
        return bucket


class Losing(GlooBroadcast):
    async def _receive_bucket(self, buffer):
        bucket = await super()._receive_bucket(buffer)
        bucket.entries.pop()
        return bucket


@pytest.mark.parametrize(
    ("planted", "message"), [(Damaging, "w arrived damaged"), (Losing, "got 1 of 2 tensors")]
)
def test_a_damaged_or_lost_tensor_is_an_error(planted, message):
    engines = [*make(1, 0), planted(bucket_size=1024, timeout_s=30.0, checksum=True)]
    with pytest.raises(WeightSyncError, match=message):
        sync(engines, 1, {"w": torch.randn(10), "b": torch.randn(2)})


def test_a_pool_that_changes_is_refused():
    engines = make(1, 2)
    sync(engines, 1, {"w": torch.ones(1)})
    with pytest.raises(WeightSyncError, match="the pools changed"):
        connect(engines[:2], 1)


def test_a_side_that_never_comes_ends_the_wait():
    sender, receiver = make(1, 1, timeout_s=1.0)
    metadata = [sender.prepare(), receiver.prepare()]
    actor, _rollout = GlooBroadcast.build_topology(1, 1, metadata)
    with pytest.raises(RuntimeError, match=r"(?i)time"):
        sender.init_process_group(**{key: values[0] for key, values in actor.items()})
