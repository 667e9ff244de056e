"""A replica's load in flight: what is called in which order, and a replica that does not answer.

Actors are stood for by coroutines, which Ray's calls are to whoever awaits them.
"""

import asyncio
from types import SimpleNamespace

import pytest
from ray.exceptions import RayTaskError

from verl_pipeline.trainer.deadlines import DeadlineExceeded
from verl_pipeline.trainer.pipeline_config import Deadlines
from verl_pipeline.trainer.server_health import Sign
from verl_pipeline.verl_adapter.weights import weight_loading
from verl_pipeline.verl_adapter.weights.weight_loading import ReplicaActors, load_weights
from verl_pipeline.weight_sync.buckets import WeightSyncError


@pytest.fixture(autouse=True)
def cancelled(monkeypatch):
    """The calls that were cancelled."""
    calls = []
    monkeypatch.setattr(weight_loading.ray, "cancel", calls.append)
    return calls


class Replica:
    """Server and worker of one replica.

    Args:
        answers: by method, what is awaited in its place.
    """

    def __init__(self, **answers):
        self.calls, self._answers = [], answers

    def __getattr__(self, method):
        async def call(*arguments, **named):
            self.calls.append((method, *arguments, *named.values()))
            if (answer := self._answers.get(method)) is not None:
                await answer()

        return SimpleNamespace(remote=call)

    def load(self, keep_kv, **deadlines):
        actors = ReplicaActors("rollout replica 3 at a:1", "vllm", "a:1", [self], [self])
        bounds = Deadlines(**{"health_check_every_s": 3600, **deadlines})
        return asyncio.run(load_weights(actors, 7, bounds, keep_kv=keep_kv))


@pytest.mark.parametrize("keep_kv", [True, False])
def test_what_runs_is_frozen_around_the_load(keep_kv):
    replica = Replica()
    assert replica.load(keep_kv) == []
    assert replica.calls == [("freeze", keep_kv), ("update_weights", 7), ("thaw", 7)]


def test_an_empty_replica_is_not_frozen():
    replica = Replica()
    replica.load(None)
    assert replica.calls == [("update_weights", 7)]


@pytest.mark.parametrize("method", ["freeze", "update_weights", "thaw"])
def test_a_replica_that_never_answers_is_named(method):
    replica = Replica(**{method: lambda: asyncio.sleep(3600)})
    with pytest.raises(DeadlineExceeded, match="load of v_7 by rollout replica 3 .*: not done"):
        replica.load(True, weight_sync_s=0.05)
    assert replica.calls[-1][0] == method


@pytest.mark.parametrize("method", ["freeze", "thaw"])
def test_an_engine_that_cannot_freeze_is_named_in_one_line(method):
    async def fail():
        raise RayTaskError(method, "Traceback of the server", ValueError("the engine is gone"))

    with pytest.raises(WeightSyncError) as caught:
        Replica(**{method: fail}).load(True)
    assert str(caught.value) == (
        "rollout replica 3 at a:1 could not load v_7, and its weights may be half loaded: "
        "the engine is gone"
    )


def test_a_load_that_failed_in_the_engine_is_named_although_its_sender_waits(
    monkeypatch, cancelled
):
    """verl's sender waits for an answer of the worker that failed, and never asks for its error."""
    alive = (Sign.ALIVE, "it answers 200")
    monkeypatch.setattr(weight_loading, "probe_replica", lambda *_arguments: alive)

    class Failed(Replica):
        @property
        def tell_load_failure(self):
            async def tell():
                return "Too many open files"

            return SimpleNamespace(remote=tell)

    replica = Failed(update_weights=lambda: asyncio.sleep(3600))
    with pytest.raises(WeightSyncError, match="could not load v_7, .*: Too many open files$"):
        replica.load(None, health_check_every_s=0.01)
    assert len(cancelled) == 1


@pytest.mark.parametrize("answer", [None, "hangs"])
def test_a_server_that_knows_of_no_failure_lets_the_load_go_on(monkeypatch, answer):
    alive = (Sign.ALIVE, "it answers 200")
    monkeypatch.setattr(weight_loading, "probe_replica", lambda *_arguments: alive)
    hangs = (lambda: asyncio.sleep(3600)) if answer else None
    replica = Replica(update_weights=lambda: asyncio.sleep(0.1), tell_load_failure=hangs)
    assert replica.load(None, health_check_every_s=0.01, health_check_s=0.01) == []
    assert ("tell_load_failure",) in replica.calls
