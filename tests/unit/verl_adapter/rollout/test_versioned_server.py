"""What the server does around vLLM's engine, of which only the queue of outputs is here; the whole
is in tests/integration/in_flight_weights_on_cpu.py.
"""

import asyncio
import importlib
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from verl_pipeline.trainer.replica_speed import Work, WorkMeter
from verl_pipeline.trainer.version_spans import VersionMark
from verl_pipeline.verl_adapter.cpu.vllm_distribution import install_finder
from verl_pipeline.verl_adapter.rollout.versioned_replica import find_freeze_fault

# verl asks for the version of vLLM when its servers are imported.
install_finder()
versioned_server = importlib.import_module("verl_pipeline.verl_adapter.rollout.versioned_server")


class Engine:
    """Answers a pause while its outputs, a token of each request, are queued for a slow task."""

    errored = False

    def __init__(self, outputs):
        self.engine_core = SimpleNamespace(outputs_queue=asyncio.Queue())
        self.counts = dict.fromkeys("ab", 0)
        states = {
            f"{name}-internal": SimpleNamespace(
                external_req_id=name,
                detokenizer=SimpleNamespace(num_output_tokens=lambda name=name: self.counts[name]),
            )
            for name in self.counts
        }
        self.output_processor = SimpleNamespace(request_states=states)
        self.paused = None
        for _step in range(outputs):
            self.engine_core.outputs_queue.put_nowait(list(self.counts))

    async def process_outputs(self):
        """vLLM's task: it waits between the outputs of a step and after them."""
        while True:
            step = await self.engine_core.outputs_queue.get()
            for name in step if isinstance(step, list) else step.outputs:
                await asyncio.sleep(0.001)
                self.counts[name] += 1
            await asyncio.sleep(0.001)

    async def pause_generation(self, mode, clear_cache):
        self.paused = mode, clear_cache


def make_server(engine, node_rank=0):
    server = object.__new__(versioned_server.VersionedServer)
    server.engine, server.global_steps, server.node_rank = engine, 7, node_rank
    server._thawed, server._keeps_kv = asyncio.Event(), False
    server._meter = WorkMeter()
    server._marks, server._first_tokens = {name: [] for name in "ac"}, {}
    return server


@pytest.mark.parametrize("keep_kv", [True, False])
def test_a_freeze_counts_what_is_still_queued(keep_kv):
    async def freeze():
        engine = Engine(outputs=5)
        server = make_server(engine)
        processing = asyncio.create_task(engine.process_outputs())
        frozen = await asyncio.wait_for(server.freeze(keep_kv), 60)
        processing.cancel()
        return engine, server, frozen

    engine, server, frozen = asyncio.run(freeze())
    # `b` is a request of the HTTP server, `c` has not reached the engine.
    assert frozen == 1 and engine.paused == ("keep", not keep_kv)
    assert server._meter._is_paused
    assert server._marks == {"a": [VersionMark(7, 5)], "c": []}


def test_an_engine_that_died_is_not_awaited():
    async def freeze():
        engine = Engine(outputs=1)  # nobody processes it
        engine.errored = True
        await asyncio.wait_for(make_server(engine).freeze(True), 60)

    asyncio.run(freeze())


def test_an_engine_that_has_run_nothing_is_not_awaited():
    async def freeze():
        engine = Engine(outputs=0)
        engine.output_processor.request_states.clear()
        return await asyncio.wait_for(make_server(engine).freeze(True), 60)

    assert asyncio.run(freeze()) == 0


def test_nodes_without_the_engine_have_nothing_to_freeze():
    async def change():
        server = make_server(engine=None, node_rank=1)
        assert await server.freeze(True) == 0
        await server.thaw(3)

    asyncio.run(change())


@pytest.mark.parametrize(
    ("rollout", "fault"),
    [
        ({"name": "vllm"}, None),
        ({"name": "vllm", "disaggregation": {"enabled": False}}, None),
        ({"name": "vllm", "disaggregation": {"enabled": True}}, "disaggregation.enabled=False"),
        ({"name": "sglang"}, "rollout.name=vllm: sglang cannot hold"),
        ({"name": "trtllm"}, "rollout.name=vllm: trtllm cannot hold"),
    ],
)
def test_what_cannot_change_weights_in_flight_is_named(rollout, fault):
    found = find_freeze_fault(OmegaConf.create({"actor_rollout_ref": {"rollout": rollout}}))
    assert found is None if fault is None else fault in found


def test_only_an_engine_that_answers_none_of_its_requests_is_silent(monkeypatch):
    """In virtual time: what waits for weights, and an engine without requests, is not."""
    now = [100.0]
    monkeypatch.setattr(versioned_server.time, "monotonic", lambda: now[0])

    async def sample():
        server = make_server(Engine(outputs=0))
        server._running, server._last_output = 0, 0.0
        goes_on = asyncio.Event()

        async def generate(_prompt, _params, _request, **_arguments):
            for tokens in ([1], [1, 2, 3]):
                await goes_on.wait()
                goes_on.clear()
                yield SimpleNamespace(outputs=[SimpleNamespace(token_ids=tokens)])

        async def run():
            outputs = server._generate({}, None, "a")
            return [output.outputs[0].token_ids async for output in outputs]

        async def look_after(seconds):
            for _ in range(5):
                await asyncio.sleep(0)
            now[0] += seconds
            return await server.measure_silence()

        server._engine_generate = generate
        server._meter = WorkMeter(lambda: now[0])
        running = asyncio.create_task(run())
        silences = [await look_after(50.0)]  # it waits until the weights are loaded
        server._thawed.set()
        silences.append(await look_after(7.0))
        silences.append(await look_after(1.0))
        goes_on.set()
        silences.append(await look_after(2.0))
        server._thawed.clear()
        silences.append(await look_after(50.0))
        server._thawed.set()
        goes_on.set()
        assert await running == [[1], [1, 2, 3]]
        silences.append(await look_after(50.0))
        assert await server.measure_work() == {1: Work(60.0, 60.0, 3)}
        return silences

    assert asyncio.run(sample()) == [0.0, 7.0, 8.0, 2.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("method", "told"),
    [(versioned_server.RECEIVE, "Too many open files (os error 24)"), ("other", None)],
)
def test_a_load_that_failed_is_told_to_who_asks(method, told):
    async def run():
        engine = Engine(0)

        async def fail(**_call):
            raise OSError("Too many open files\n(os error 24)")

        engine.collective_rpc = fail
        server = make_server(engine)
        server._load_failure = None
        with pytest.raises(OSError):
            await server.collective_rpc(method, timeout=None, args=(), kwargs={})
        assert await server.tell_load_failure() == told

    asyncio.run(run())
