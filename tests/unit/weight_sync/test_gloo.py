"""The gloo checkpoint engine over real gloo groups; the sides are threads of one process."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_pipeline.weight_sync.gloo import GlooCheckpointEngine, WeightSyncError

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8]


def connect(engines, actors):
    """What verl's manager does at each sync: prepare all, build the topology, join the group together."""
    metadata = [engine.prepare() for engine in engines]
    actor, rollout = GlooCheckpointEngine.build_topology(actors, len(engines) - actors, metadata)
    arguments = [{key: actor[key][rank] for key in actor} for rank in range(actors)]
    arguments += [{key: rollout[key][rank] for key in rollout} for rank in range(len(engines) - actors)]
    with ThreadPoolExecutor(len(engines)) as pool:
        list(pool.map(lambda pair: pair[0].init_process_group(**pair[1]), zip(engines, arguments, strict=True)))


async def _collect(engine):
    return {name: weight.clone() async for name, weight in engine.receive_weights(1)}


def sync(engines, actors, weights):
    """One sync; returns the sender's metrics and what each receiver got."""
    connect(engines, actors)
    with ThreadPoolExecutor(len(engines)) as pool:
        sent = [
            pool.submit(lambda engine=engine: asyncio.run(engine.send_weights(iter(weights.items()))))
            for engine in engines[:actors]
        ]
        received = [pool.submit(lambda engine=engine: asyncio.run(_collect(engine))) for engine in engines[actors:]]
        results = [future.result(60) for future in [*sent, *received]]
    for engine in engines:
        engine.finalize()
    return results[0], results[actors:]


def make(actors, rollouts, **kwargs):
    kwargs = {"bucket_size": 1024, "timeout_s": 30.0, "checksum": True, **kwargs}
    return [GlooCheckpointEngine(is_master=rank == 0, **kwargs) for rank in range(actors + rollouts)]


def random_weights(shapes):
    torch.manual_seed(0)
    return {f"layer.{index}": (torch.randn(shape) * 50).to(DTYPES[kind]) for index, (shape, kind) in enumerate(shapes)}


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(1, 24), min_size=0, max_size=2), st.integers(0, len(DTYPES) - 1)),
        min_size=1,
        max_size=12,
    )
)
def test_every_tensor_arrives_whatever_its_size(shapes):
    """Tensors smaller and larger than a bucket, scalars included, bit by bit."""
    weights = random_weights(shapes)
    metrics, received = sync(make(1, 1), 1, weights)
    assert list(received[0]) == list(weights)
    for name, weight in weights.items():
        assert received[0][name].dtype == weight.dtype
        assert torch.equal(received[0][name], weight)
    assert metrics["weight_sync/tensors"] == len(weights)
    assert metrics["weight_sync/bytes"] == sum(weight.nbytes for weight in weights.values())


def test_two_trainer_ranks_two_replicas_three_syncs():
    engines = make(2, 2)
    for version in range(3):
        weights = {"w": torch.full((700,), float(version)), "b": torch.arange(5)}
        _metrics, received = sync(engines, 2, weights)
        for got in received:
            assert all(torch.equal(got[name], weights[name]) for name in weights)


def test_floats_travel_in_the_rollouts_dtype():
    weights = {"w": torch.randn(10), "i": torch.arange(3)}
    metrics, (got,) = sync(make(1, 1, rollout_dtype="bfloat16"), 1, weights)
    assert got["w"].dtype == torch.bfloat16 and torch.equal(got["w"], weights["w"].bfloat16())
    assert got["i"].dtype == torch.int64
    assert metrics["weight_sync/bytes"] == 10 * 2 + 3 * 8


class Damaging(GlooCheckpointEngine):
    async def _receive(self, buffer):
        bucket = await super()._receive(buffer)
        buffer[3] ^= 1
        return bucket


class Losing(GlooCheckpointEngine):
    async def _receive(self, buffer):
        bucket = await super()._receive(buffer)
        bucket.chunks.pop()
        return bucket


@pytest.mark.parametrize(("planted", "message"), [(Damaging, "w arrived damaged"), (Losing, "got 1 of 2 tensors")])
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
    actor, _rollout = GlooCheckpointEngine.build_topology(1, 1, metadata)
    with pytest.raises(RuntimeError, match=r"(?i)time"):
        sender.init_process_group(**{key: values[0] for key, values in actor.items()})
