"""The dispatcher records what its replicas load."""

import asyncio
import json
from dataclasses import dataclass

import pytest

from tests.helpers.made_up_run import make_header
from tests.helpers.simulated_run import MadeUpRun
from verl_pipeline.telemetry import recorder
from verl_pipeline.telemetry.recorder import RunTarget, find_recorder
from verl_pipeline.verl_adapter.rollout.dispatcher import Dispatcher


@dataclass
class Port:
    """A replica that loads at once, but for versions that it cannot load."""

    address: str
    broken: int
    handle: str = "server"

    async def load(self, version, request):
        await asyncio.sleep(0)
        if version == self.broken:
            raise RuntimeError("no such weights")
        return []


@pytest.fixture
def read_spans(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "_recorders", {})

    def read():
        find_recorder().close()
        (path,) = (tmp_path / "telemetry").glob("spans-dispatcher-*.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]

    return read


def test_each_load_is_a_span_of_its_replica_with_its_version(tmp_path, read_spans):
    target = RunTarget(str(tmp_path), make_header(MadeUpRun()))

    async def play():
        ports = [Port("10.0.0.1:1", broken=-1), Port("10.0.0.1:2", broken=1)]
        dispatcher = Dispatcher(ports, 4, "rolling", target)
        for version in (0, 1):
            await dispatcher.publish(version, None)
            while dispatcher._loads:
                await asyncio.sleep(0)
        (loss,) = await dispatcher.take_losses()
        assert (loss.replica, loss.seen) == ("10.0.0.1:2", "no such weights")
        assert await dispatcher.take_losses() == []

    asyncio.run(play())
    spans = read_spans()
    assert spans.pop()["name"] == "lost"
    found = [(span["pool"], span["lane"], span["name"], span["detail"]) for span in spans]
    assert found == [
        ("rollout", f"replica {rank}", "load_weights", {"version": version})
        for version in (0, 1)
        for rank in (0, 1)
    ]
    assert all(span["start"] <= span["end"] for span in spans)


@dataclass
class SlowPort(Port):
    """A replica that loads until it is told that it has."""

    broken: int = -1

    def __post_init__(self):
        self.has_loaded = asyncio.Event()
        self.versions = []

    async def load(self, version, request):
        self.versions.append(version)
        await self.has_loaded.wait()
        return []


def test_a_run_that_ends_waits_for_its_loads_and_begins_no_other(tmp_path):
    """A replica that is ended in a load leaves verl's socket behind."""

    async def play():
        port = SlowPort("10.0.0.1:1")
        dispatcher = Dispatcher([port], 4, "rolling", RunTarget(None, make_header(MadeUpRun())))
        assert await dispatcher.finish_loads(0.01)
        dispatcher._is_closed = False
        await dispatcher.publish(0, None)
        await asyncio.sleep(0)
        assert not await dispatcher.finish_loads(0.01)
        await dispatcher.publish(1, None)
        waits = asyncio.create_task(dispatcher.finish_loads(60.0))
        await asyncio.sleep(0)
        assert not waits.done()
        port.has_loaded.set()
        assert await waits
        assert port.versions == [0]

    asyncio.run(play())
