"""A server tells the age of each first token, and verl finds replicas with such servers."""

import asyncio
from types import SimpleNamespace

import pytest
import ray
from omegaconf import OmegaConf
from verl.workers.rollout.replica import RolloutReplicaRegistry, TokenOutput

from verl_pipeline.verl_adapter.telemetry.first_token_server import (
    FIRST_TOKEN_AGE,
    FirstTokenServer,
    time_first_tokens,
)
from verl_pipeline.verl_adapter.telemetry.first_tokens import record_first_tokens

TOKEN_S = 0.02


class Engine:
    """Gives the tokens of a request one by one, after an output without any."""

    def __init__(self):
        self.closed = 0

    async def generate(self, prompt, sampling_params, request_id):
        try:
            for tokens in range(sampling_params["tokens"] + 1):
                yield SimpleNamespace(outputs=[SimpleNamespace(token_ids=[7] * tokens)])
                await asyncio.sleep(TOKEN_S)
        finally:
            self.closed += 1


class Server:
    """verl's, as far as it asks the engine."""

    def __init__(self, *args):
        self.args = args

    async def run_server(self, args):
        self.engine = Engine()

    async def generate(self, prompt_ids, sampling_params, request_id, fails=False):
        last = None
        async for output in self.engine.generate(
            prompt={}, sampling_params=sampling_params, request_id=request_id
        ):
            last = output
            if fails:
                raise RuntimeError("no engine")
        return TokenOutput(token_ids=last.outputs[0].token_ids, extra_fields={"global_steps": 3})


class TimedServer(FirstTokenServer, Server):
    pass


def ask(*requests):
    async def run():
        server = TimedServer()
        await server.run_server(None)
        answers = await asyncio.gather(
            *[
                server.generate([1], {"tokens": tokens}, f"request {i}", **extra)
                for i, (tokens, extra) in enumerate(requests)
            ],
            return_exceptions=True,
        )
        # A request of the HTTP server goes to the engine itself.
        async for _ in server.engine.generate({}, {"tokens": 1}, request_id="other"):
            pass
        return server, answers

    return asyncio.run(run())


def test_an_answer_has_the_time_since_its_own_first_token():
    server, answers = ask((1, {}), (6, {}))
    ages = [answer.extra_fields[FIRST_TOKEN_AGE] for answer in answers]
    assert 0.9 * TOKEN_S <= ages[0] < ages[1] and ages[1] >= 0.9 * 6 * TOKEN_S
    assert all(answer.extra_fields["global_steps"] == 3 for answer in answers)
    assert server._first_tokens == {} and server.engine is not None


def test_an_answer_without_a_token_has_no_age_and_an_error_leaves_nothing():
    server, (empty, failed) = ask((0, {}), (3, {"fails": True}))
    assert empty.extra_fields == {"global_steps": 3}
    assert isinstance(failed, RuntimeError) and server._first_tokens == {}


class Replica:
    def __init__(self, rank):
        self.rank, self.server_class = rank, ray.remote(Server)


def test_a_replica_keeps_its_own_servers_class_below():
    replica = time_first_tokens(Replica)(2)
    made = replica.server_class.__ray_actor_class__
    assert replica.rank == 2 and issubclass(made, Server) and issubclass(made, FirstTokenServer)
    assert made(4).args == (4,) and made.__name__ == Server.__name__


@pytest.mark.parametrize(
    ("engine", "enabled", "is_timed"),
    [("vllm", True, True), ("vllm", False, False), ("sglang", True, False)],
)
def test_verl_finds_timed_replicas_of_vllm_only(engine, enabled, is_timed, monkeypatch):
    kept = dict(RolloutReplicaRegistry._registry) | {engine: lambda: Replica}
    monkeypatch.setattr(RolloutReplicaRegistry, "_registry", kept)
    telemetry = {"one_off_pipeline": {"telemetry": {"enabled": enabled}}}
    config = {
        "trainer": {"v1": {"trainer_mode": "sync", **telemetry}},
        "actor_rollout_ref": {"rollout": {"name": engine}},
    }
    record_first_tokens(OmegaConf.create(config))
    found = RolloutReplicaRegistry.get(engine)
    assert issubclass(found, Replica) and (found is not Replica) == is_timed
