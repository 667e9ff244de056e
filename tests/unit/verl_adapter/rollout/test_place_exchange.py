"""Trajectories, clients and the dispatcher on one event loop, whose calls start in any order.

Client, exchange and dispatcher are the real ones; only Ray's transport is made up.
"""

import asyncio
import random
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.made_up_run import MadeUpRun, make_header
from verl_pipeline.telemetry.recorder import RunTarget
from verl_pipeline.trainer.schedule import ROLLING, find_window
from verl_pipeline.verl_adapter.rollout.dispatched_client import DispatchedClient
from verl_pipeline.verl_adapter.rollout.dispatcher import Dispatcher

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


def test_a_load_that_fails_is_kept_as_it_was_raised():
    error = RuntimeError("replica 0 could not load v_0")

    async def load_badly(_version, _request):
        raise error

    async def run():
        dispatcher = make_dispatcher([load_badly, load_at_once])
        assert await dispatcher.find_failure() is None
        await dispatcher.publish(0, None)
        await wait_until(lambda: dispatcher._failures)
        assert await dispatcher.find_failure() is error

    asyncio.run(run())


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
