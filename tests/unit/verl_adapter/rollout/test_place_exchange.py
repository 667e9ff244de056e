"""Trajectories, clients and the dispatcher on one event loop, whose calls start in any order.

Client, exchange and dispatcher are the real ones; only Ray's transport is made up.
"""

import asyncio
import itertools
import random
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from verl.workers.rollout.replica import TokenOutput

from tests.helpers.made_up_run import MadeUpRun, make_header
from verl_pipeline.telemetry.recorder import RunTarget
from verl_pipeline.trainer.dispatch import Arrival
from verl_pipeline.trainer.schedule import ROLLING, find_window
from verl_pipeline.verl_adapter.rollout import dispatched_client
from verl_pipeline.verl_adapter.rollout.dispatched_client import DispatchedClient, ReplicaLost
from verl_pipeline.verl_adapter.rollout.dispatcher import Dispatcher
from verl_pipeline.verl_adapter.rollout.replica_probe import find_death

SLOTS = 2
NOWHERE = RunTarget(None, make_header(MadeUpRun()))


@dataclass
class Port:
    """A replica that loads as it is told."""

    address: str
    load: Any

    @property
    def handle(self):
        return f"handle of {self.address}"


async def load_at_once(_version, _request):
    return []


class Transport:
    """Stands for the dispatcher's handle; each call starts after a random while, as Ray's may.

    Attributes:
        open, most_open: calls that have no answer yet.
    """

    def __init__(self, target, seed=0):
        self._target, self._random = target, random.Random(seed)
        self.open = self.most_open = 0

    def __getattr__(self, name):
        return SimpleNamespace(remote=lambda *arguments: self._call(name, arguments))

    def _call(self, name, arguments):
        return asyncio.get_running_loop().create_task(self._run(name, arguments))

    async def _run(self, name, arguments):
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            for _ in range(self._random.randrange(8)):
                await asyncio.sleep(0)
            answer = await getattr(self._target, name)(*arguments)
            for _ in range(self._random.randrange(8)):
                await asyncio.sleep(0)
            return answer
        finally:
            self.open -= 1


def make_dispatcher(loads=(load_at_once, load_at_once)):
    ports = [Port(f"replica {number}", load) for number, load in enumerate(loads)]
    return Dispatcher(ports, SLOTS, ROLLING, NOWHERE)


def make_client(transport):
    return DispatchedClient(SimpleNamespace(), transport)


async def wait_until(condition):
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("nothing happens any more")


def is_empty(dispatcher):
    book = dispatcher._book
    return not (book.open_count or book.waiting_count or dispatcher._askers)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_cancelled_when_every_slot_comes_back(seed):
    """Trajectories that give up before, while and after their place is on its way."""
    chance = random.Random(seed)
    running = {}
    begun = []

    async def sample(client, name):
        async with client.hold_place(name, 1, find_window(1, 1)):
            server, handle = await client._find_server(name)
            assert handle == f"handle of {server}"
            running.setdefault(server, set()).add(name)
            begun.append(name)
            assert len(running[server]) <= SLOTS
            try:
                for _ in range(chance.randrange(6)):
                    await asyncio.sleep(0)
            finally:
                running[server].remove(name)
            if chance.random() < 0.5:
                client.leave_place()

    async def run():
        dispatcher = make_dispatcher()
        transports = [Transport(dispatcher, seed + number) for number in range(3)]
        clients = [make_client(transport) for transport in transports]
        tasks = [
            asyncio.create_task(sample(clients[number % 3], f"b1p{number}")) for number in range(40)
        ]
        cancelled = chance.sample(tasks, 15)
        await dispatcher.publish(0, None)
        for task in cancelled:
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        errors = [result for result in results if result is not None]
        assert all(isinstance(error, asyncio.CancelledError) for error in errors)
        assert {task for task in tasks if task.cancelled()} <= set(cancelled)
        await wait_until(lambda: is_empty(dispatcher))
        # One that tells and one that takes.
        assert max(transport.most_open for transport in transports) <= 2
        assert [replica.open for replica in dispatcher._book.replicas.values()] == [0, 0]

    asyncio.run(run())
    assert len(begun) == len(set(begun)) >= 25


def test_thousands_that_wait_are_two_calls():
    async def run():
        dispatcher = make_dispatcher()
        transport = Transport(dispatcher)
        client = make_client(transport)

        async def hold(name):
            async with client.hold_place(name, 1, find_window(1, 1)):
                await asyncio.sleep(3600)

        tasks = [asyncio.create_task(hold(f"b1p{number}")) for number in range(3000)]
        await wait_until(lambda: dispatcher._book.waiting_count == 3000)
        assert transport.open <= 2
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await wait_until(lambda: is_empty(dispatcher))

    asyncio.run(run())


def test_a_replica_that_never_answers_its_load_takes_nothing_and_the_others_go_on():
    async def load_never(_version, _request):
        await asyncio.Event().wait()

    async def run():
        dispatcher = make_dispatcher([load_never, load_at_once])
        client = make_client(Transport(dispatcher))
        servers = []

        async def sample(name):
            async with client.hold_place(name, 1, find_window(1, 1)):
                servers.append((await client._find_server(name))[0])

        await dispatcher.publish(0, None)
        await asyncio.gather(*[sample(f"b1p{number}") for number in range(7)])
        assert servers == ["replica 1"] * 7
        assert "replica 0 holds v_None and loads v_0" in await dispatcher.describe()

    asyncio.run(run())


def test_a_load_reads_what_was_asked_of_its_version():
    """Also when the next version comes before the load has begun."""
    loaded = []

    async def load(version, request):
        loaded.append((version, request))
        return []

    async def run():
        dispatcher = make_dispatcher([load])
        await dispatcher.publish(1, "what v_1 has")
        await dispatcher.publish(2, "what v_2 has")
        await wait_until(lambda: dispatcher._book.replicas["replica 0"].version == 2)

    asyncio.run(run())
    assert loaded == [(1, "what v_1 has"), (2, "what v_2 has")]


def test_a_replica_that_fails_in_a_load_is_lost_and_the_others_go_on():
    async def load_badly(_version, _request):
        raise RuntimeError("replica 0 could not load v_0")

    async def run():
        dispatcher = make_dispatcher([load_badly, load_at_once])
        await dispatcher.publish(0, None)
        await wait_until(lambda: dispatcher._losses)
        (loss,) = await dispatcher.take_losses()
        assert (loss.replica, loss.seen) == ("replica 0", "replica 0 could not load v_0")
        assert await dispatcher.find_versions() == {"replica 1": 0}

    asyncio.run(run())


async def sample_until_kept(client, name, body):
    """As an agent loop worker does; returns how often it began."""
    for number in itertools.count():
        with suppress(ReplicaLost):
            async with client.hold_place(f"{name} again {number}", 1, find_window(1, 1)) as server:
                await body(server)
            return number + 1


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_lost_when_each_trajectory_is_sampled_once(seed):
    """Two of three replicas, also while they load, and with trajectories that give up."""
    chance = random.Random(seed)
    gone, kept, broken = set(), [], []

    async def load_slowly(_version, _request):
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        return []

    async def run():
        dispatcher = make_dispatcher([load_slowly] * 3)
        clients = [make_client(Transport(dispatcher, seed + number)) for number in range(3)]

        def sample(number):
            async def body(server):
                for _ in range(chance.randrange(20)):
                    await asyncio.sleep(0)
                (broken if server in gone else kept).append(f"b1p{number}")
                clients[number % 3].leave_place()
                await asyncio.sleep(0)  # the reward, which no loss interrupts

            return sample_until_kept(clients[number % 3], f"b1p{number}", body)

        tasks = [asyncio.create_task(sample(number)) for number in range(40)]
        await dispatcher.publish(0, None)
        for name in chance.sample(["replica 0", "replica 1", "replica 2"], 2):
            for _ in range(chance.randrange(100)):
                await asyncio.sleep(0)
            await dispatcher.lose(name, "it is dead")
            await dispatcher.lose(name, "it is dead, says another")
            # What is on its way to be sampled may end before its client hears of the loss.
            asyncio.get_running_loop().call_later(0.05, gone.add, name)
        cancelled = chance.sample(tasks, 5)
        for task in cancelled:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert {task for task in tasks if task.cancelled()} <= set(cancelled)
        await wait_until(lambda: is_empty(dispatcher))
        assert [replica.open for replica in dispatcher._book.replicas.values()] == [0]
        assert len(await dispatcher.take_losses()) == 2

    asyncio.run(run())
    assert len(kept) == len(set(kept)) >= 35 and not broken


def test_a_loss_stops_what_runs_and_leaves_what_has_left_its_place():
    async def run():
        dispatcher = make_dispatcher()
        client = make_client(Transport(dispatcher))
        await dispatcher.publish(0, None)
        reached = []

        async def sample(name, *, leaves):
            async def body(server):
                if leaves:
                    client.leave_place()
                reached.append(server)
                await asyncio.sleep(3600 if len(reached) <= 2 and not leaves else 0.05)

            return await sample_until_kept(client, name, body)

        stopped = asyncio.create_task(sample("b1p0", leaves=False))
        await wait_until(lambda: len(reached) == 1)
        graded = asyncio.create_task(sample("b1p1", leaves=True))
        await wait_until(lambda: len(reached) == 2)
        await dispatcher.lose(reached[0], "it is dead")
        assert await graded == 1 and await stopped == 2
        assert reached[2] != reached[0]

    asyncio.run(run())


def test_what_a_dead_process_held_comes_back_and_its_late_calls_change_nothing():
    async def run():
        dispatcher = make_dispatcher()
        dying, living = make_client(Transport(dispatcher)), make_client(Transport(dispatcher))
        dying.process = "the dying one"
        await dispatcher.publish(0, None)

        async def hold(client, name):
            async with client.hold_place(name, 1, find_window(1, 1)):
                await asyncio.sleep(3600 if client is dying else 0)

        held = [asyncio.create_task(hold(dying, f"b1p{number}")) for number in range(7)]
        await wait_until(lambda: dispatcher._book.open_count == 2 * SLOTS)
        waits = [asyncio.create_task(hold(living, "b2p0"))]
        await wait_until(lambda: dispatcher._book.waiting_count == 4)
        await dispatcher.forget("the dying one")
        await asyncio.gather(*waits)
        late = Arrival("b1p8", 1, find_window(1, 1))
        await dispatcher.tell("the dying one", [late], ["b1p0"])
        # The successor uses the same names.
        await asyncio.gather(*[hold(living, f"b1p{number}") for number in range(7)])
        await wait_until(lambda: is_empty(dispatcher))
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)

    asyncio.run(run())


def make_death():
    return ActorDiedError()


def make_engine_death():
    return RayTaskError(
        "generate", "Traceback", EngineDeadError("it\nis gone")
    ).as_instanceof_cause()


class EngineDeadError(Exception):
    """As vLLM names it."""


def make_failing_pool(make_error, asked):
    """A dispatcher with two replicas of which the first one asked fails its first request, and a
    client; ``asked`` grows by the replica of each request."""

    @dataclass(frozen=True)
    class Handle:
        place: str

        @property
        def generate(self):
            async def answer(**_request):
                asked.append(self.place)
                if len(asked) == 1:
                    raise make_error()
                return TokenOutput(token_ids=[1], extra_fields={"global_steps": 0})

            return SimpleNamespace(remote=answer)

    class HandledPort(Port):
        handle = property(lambda self: Handle(self.address))

    ports = [HandledPort(f"replica {number}", load_at_once) for number in range(2)]
    dispatcher = Dispatcher(ports, SLOTS, ROLLING, NOWHERE)
    rollout = SimpleNamespace(name="vllm", response_length=4, prompt_length=4)
    config = SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=rollout))
    return dispatcher, DispatchedClient(config, Transport(dispatcher))


def sample_one(client, outputs):
    """Sample a trajectory of one turn until it is kept; awaits how often it began."""

    async def body(_server):
        outputs.append(await client.generate("r", prompt_ids=[1], sampling_params={}))

    return sample_until_kept(client, "b1p0", body)


@pytest.mark.parametrize("make_error", [make_death, make_engine_death])
def test_a_request_that_finds_its_replica_dead_is_sampled_by_another(make_error):
    asked, outputs = [], []

    async def run():
        dispatcher, client = make_failing_pool(make_error, asked)
        await dispatcher.publish(0, None)

        assert await sample_one(client, outputs) == 2
        (loss,) = await dispatcher.take_losses()
        assert (loss.replica, loss.trajectories) == (asked[0], 1)
        assert loss.seen.startswith("its ")
        assert len(outputs) == 1 and asked[1] != asked[0]

    asyncio.run(run())


def make_unavailable():
    return ActorUnavailableError("not now", b"0" * 16)


def test_a_request_that_cannot_reach_its_replica_is_lost_and_sampled_again(monkeypatch):
    """Ray says so of the replicas of a node that has just died, and of living ones at times."""
    monkeypatch.setattr(dispatched_client, "UNREACHABLE_S", 0.01)
    asked, outputs = [], []

    async def run():
        dispatcher, client = make_failing_pool(make_unavailable, asked)
        await dispatcher.publish(0, None)

        assert await sample_one(client, outputs) == 2
        assert await dispatcher.take_losses() == []  # nobody knows that it is dead
        assert len(outputs) == 1 and len(asked) == 2
        await wait_until(lambda: is_empty(dispatcher))

    asyncio.run(run())


def test_the_loss_of_a_replica_ends_the_wait_of_who_cannot_reach_it(monkeypatch):
    monkeypatch.setattr(dispatched_client, "UNREACHABLE_S", 3600.0)
    asked, outputs = [], []

    async def run():
        dispatcher, client = make_failing_pool(make_unavailable, asked)
        await dispatcher.publish(0, None)

        sampling = asyncio.create_task(sample_one(client, outputs))
        await wait_until(lambda: asked)
        await dispatcher.lose(asked[0], "its node is gone")
        assert await asyncio.wait_for(sampling, 10) == 2
        assert asked[1] != asked[0]

    asyncio.run(run())


def test_an_error_that_is_no_death_is_the_trajectorys_own():
    assert find_death(make_unavailable()) is None
    assert find_death(RayTaskError("generate", "Traceback", ValueError("too long"))) is None
    assert find_death(RayTaskError("generate", "Traceback", make_death())) is not None


class Dead:
    """A dispatcher that has died."""

    def __getattr__(self, name):
        async def fail(*_arguments):
            raise ConnectionError("the dispatcher has died")

        return fail


def test_the_error_of_the_dispatcher_reaches_all_who_wait_and_who_come_later():
    async def run():
        client = make_client(Transport(Dead()))

        async def sample(name):
            async with client.hold_place(name, 1, find_window(1, 1)):
                raise AssertionError("it has no place")

        for names in (["b1p0", "b1p1"], ["b1p2"]):
            results = await asyncio.gather(*map(sample, names), return_exceptions=True)
            assert [str(result) for result in results] == ["the dispatcher has died"] * len(names)

    asyncio.run(run())


def test_a_name_that_comes_twice_is_refused_and_its_first_place_kept():
    async def run():
        dispatcher = make_dispatcher()
        first, second = (make_client(Transport(dispatcher)) for _ in range(2))
        await dispatcher.publish(0, None)
        async with first.hold_place("b1p0", 1, find_window(1, 1)):
            with pytest.raises(AssertionError, match="b1p0 has come already"):
                async with second.hold_place("b1p0", 1, find_window(1, 1)):
                    pass
            assert dispatcher._book.open_count == 1
        await wait_until(lambda: is_empty(dispatcher))

    asyncio.run(run())


def test_a_replica_takes_part_once_a_version_is_published_that_its_node_stores():
    loaded = []

    async def load(version, _request):
        loaded.append(version)
        return []

    async def run():
        dispatcher = make_dispatcher([load_at_once])
        await dispatcher.publish(3, None)
        await dispatcher.join(Port("replica 1", load), "replica 1", 4)
        await dispatcher.join(Port("replica 2", load), "replica 2", 4)
        assert await dispatcher.find_versions() == {"replica 0": None}
        await dispatcher.lose("replica 2", "it died before")
        await dispatcher.hold(3)
        await dispatcher.publish(4, None)
        assert set(await dispatcher.find_versions()) == {"replica 0"}
        await dispatcher.release()
        await wait_until(lambda: loaded)
        assert set(await dispatcher.find_versions()) == {"replica 0", "replica 1"}
        (loss,) = await dispatcher.take_losses()
        assert (loss.replica, loss.trajectories) == ("replica 2", 0)

    asyncio.run(run())
    assert loaded == [4]
