"""A worker's trajectories are recorded as they live, fail and are graded."""

import asyncio
import json
import math
import random
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from verl.workers.rollout.llm_server import FullyAsyncLLMServerClient, LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from verl_pipeline.telemetry import recorder as recorder_module
from verl_pipeline.telemetry.recorder import RunTarget, find_recorder
from verl_pipeline.verl_adapter.rollout.dispatched_client import DispatchedClient
from verl_pipeline.verl_adapter.telemetry import agent_loops
from verl_pipeline.verl_adapter.telemetry.agent_loops import REPLICA_LANES, record_worker
from verl_pipeline.verl_adapter.telemetry.first_token_server import FIRST_TOKEN_AGE
from verl_pipeline.verl_adapter.telemetry.first_tokens import note_first_tokens

SERVER = "10.0.0.1:8000"
# For a place.
WAIT_S = 0.01


# Seconds before an answer in which its first token came.
AGE_S = 0.25


class Server:
    """Stands for the handle of a server, which answers at once."""

    def __init__(self):
        self.generate = SimpleNamespace(remote=self.answer)
        self.asked = 0

    async def answer(self, **request):
        self.asked += 1
        await asyncio.sleep(0)
        return TokenOutput(
            token_ids=[3, 4, 5], extra_fields={FIRST_TOKEN_AGE: AGE_S, "global_steps": 3}
        )


class Client(LLMServerClient):
    """verl's client of one server, without a load balancer."""

    def __init__(self):
        config = {"actor_rollout_ref": {"rollout": {"name": "vllm"}}}
        super().__init__(OmegaConf.create(config))
        self.server = Server()

    async def _acquire_server(self, request_id, **extra):
        return SERVER, self.server

    def _release_server(self, server_id, request_id=None):
        pass

    @asynccontextmanager
    async def hold_place(self, name):
        await asyncio.sleep(WAIT_S)
        yield SERVER


class Worker:
    """Stands for verl's worker; its trajectories do what their name says."""

    def __init__(self, client, handles=()):
        self.config = SimpleNamespace(
            actor_rollout_ref=SimpleNamespace(rollout=SimpleNamespace(response_length=16))
        )
        self.llm_client, self.reward_loop_worker_handles = client, handles

    async def _run_agent_loop(self, sampling_params, *, trajectory, session_id, uid, **kwargs):
        async with self.llm_client.hold_place(uid):
            return await self._sample(uid, kwargs)

    async def _sample(self, uid, kwargs):
        for _turn in range(kwargs.get("turns", 1)):
            answer = await self.llm_client.generate(uid, prompt_ids=[1, 2], sampling_params={})
            assert FIRST_TOKEN_AGE not in answer.extra_fields
        if uid == "fails":
            raise RuntimeError("no server\nfor this")
        extra = {"min_global_steps": 3, "max_global_steps": 4}
        output = SimpleNamespace(
            extra_fields=extra, prompt_ids=[1, 2], response_ids=[3, 4, 5], reward_score=None
        )
        if uid == "mixed":
            extra["version_spans"] = [[3, 2], [4, 1]]
        if uid == "odd":
            output.extra_fields = "no mapping"
        await self._compute_score([output], kwargs)
        return output

    async def _compute_score(self, outputs, kwargs):
        await asyncio.sleep(0)
        if self.reward_loop_worker_handles:
            random.choice(self.reward_loop_worker_handles)
        if self.reward_loop_worker_handles is not None:
            outputs[-1].reward_score = kwargs.get("reward", 0.5)


@pytest.fixture
def run_worker(tmp_path, monkeypatch, made_header):
    """Runs trajectories and returns the events and spans that were written."""
    monkeypatch.setattr(recorder_module, "_recorders", {})

    def run(*prompts, handles=(), lanes=None, validate=False, header=made_header, **kwargs):
        target = RunTarget(str(tmp_path), header)
        monkeypatch.setattr(agent_loops, "make_target", lambda config: target)
        client = Client()
        if lanes is not None:
            setattr(client, REPLICA_LANES, lanes)
        worker = record_worker(Worker)(client, handles)

        async def run_all():
            one = {"step": 7, "validate": validate}
            return await asyncio.gather(
                *[
                    asyncio.create_task(
                        worker._run_agent_loop({}, trajectory=one, session_id=i, uid=uid, **kwargs)
                    )
                    for i, uid in enumerate(prompts)
                ],
                return_exceptions=True,
            )

        results = asyncio.run(run_all())
        find_recorder().close()

        def read(kind):
            found = (tmp_path / "telemetry").glob(f"{kind}-*.jsonl")
            return [json.loads(line) for path in found for line in path.read_text().splitlines()]

        return results, read("trajectories"), read("problems")

    return run


def test_each_trajectory_has_its_moments_with_what_is_known_then(run_worker):
    _, events, _ = run_worker("a", "b", lanes={SERVER: "replica 1"}, handles=["only"])
    for session, prompt in enumerate(("a", "b")):
        started, generated, graded = [event for event in events if event["prompt"] == prompt]
        assert started["moment"] == "started" and "replica" not in started
        assert (
            generated.items()
            >= {
                "moment": "generated",
                "session": session,
                "replica": "replica 1",
                "first_version": 3,
                "last_version": 4,
                "prompt_tokens": 2,
                "response_tokens": 3,
                "limit": 16,
            }.items()
        )
        expected = {"moment": "graded", "reward": 0.5, "reward_worker": "reward worker 0"}
        assert graded.items() >= expected.items()
        assert generated["t"] - generated["first_token"] == pytest.approx(AGE_S, abs=0.2)
        assert started["t"] <= generated["t"] <= graded["t"]
        assert "batch" not in started  # verl's modes have none beforehand


@pytest.mark.parametrize("turns", [1, 3])
def test_the_first_token_is_the_first_turns(run_worker, turns, monkeypatch):
    ages = iter([AGE_S, 7.0, 7.0])

    async def answer(self, **request):
        return TokenOutput(token_ids=[3], extra_fields={FIRST_TOKEN_AGE: next(ages)})

    monkeypatch.setattr(Server, "answer", answer)
    _, events, _ = run_worker("a", turns=turns)
    generated = next(event for event in events if event["moment"] == "generated")
    assert generated["t"] - generated["first_token"] == pytest.approx(AGE_S, abs=0.2)


def test_a_server_that_does_not_tell_leaves_the_first_token_unknown(run_worker, monkeypatch):
    async def answer(self, **request):
        return TokenOutput(token_ids=[3])

    monkeypatch.setattr(Server, "answer", answer)
    _, events, _ = run_worker("a")
    assert all("first_token" not in event for event in events)


def test_the_reward_worker_is_the_one_that_was_chosen(run_worker, monkeypatch):
    monkeypatch.setattr(random, "choice", lambda handles: handles[2])
    _, events, _ = run_worker("a", handles=["x", "y", "z"])
    assert events[-1]["reward_worker"] == "reward worker 2"


@pytest.mark.parametrize("own", [LLMServerClient, FullyAsyncLLMServerClient, DispatchedClient])
def test_each_client_of_verls_and_ours_keeps_its_ways(own):
    client, ages = own.__new__(own), []
    client.config = OmegaConf.create(
        {
            "actor_rollout_ref": {
                "rollout": {"name": "vllm", "prompt_length": 4, "response_length": 4}
            }
        }
    )
    server = Server()

    async def acquire(request_id, **extra):
        return SERVER, server

    client._acquire_server, client._release_server = acquire, lambda *args, **kwargs: None
    note_first_tokens(client, ages.append)
    assert isinstance(client, own) and type(client).generate is not LLMServerClient.generate
    answer = asyncio.run(client.generate("x", prompt_ids=[1], sampling_params={}))
    assert answer.token_ids == [3, 4, 5] and ages == [AGE_S] and server.asked == 1


@pytest.mark.parametrize("mode", ["drained", "rolling", "in_flight"])
def test_past_the_barrier_a_trajectory_begins_when_it_has_its_place(run_worker, made_header, mode):
    header = replace(made_header, mode="one_off_pipeline", staleness=1, weight_sync_mode=mode)
    _, events, _ = run_worker("a", header=header, lanes={SERVER: "replica 1"})
    moments = [event["moment"] for event in events]
    if mode == "drained":
        assert moments == ["started", "generated", "graded"]
        return
    assert moments == ["started", "begun", "generated", "graded"]
    started, begun = events[:2]
    assert begun["replica"] == "replica 1" and begun["batch"] == 7
    assert begun["t"] - started["t"] >= 0.9 * WAIT_S


def test_a_trajectory_of_several_versions_tells_their_tokens(run_worker):
    _, events, _ = run_worker("a", "mixed")
    spans = {
        event["prompt"]: event.get("version_spans")
        for event in events
        if event["moment"] == "generated"
    }
    assert spans == {"a": None, "mixed": "3:2 4:1"}


def test_a_failure_is_the_last_moment_and_still_raised(run_worker):
    (error,), events, _ = run_worker("fails")
    assert isinstance(error, RuntimeError)
    assert [event["moment"] for event in events] == ["started", "failed"]
    assert events[-1]["reason"] == "RuntimeError: no server"
    assert events[-1]["replica"] == SERVER


def test_a_reward_that_is_no_number_is_not_known(run_worker):
    _, events, _ = run_worker("a", reward=math.nan)
    assert events[-1]["moment"] == "graded" and "reward" not in events[-1]


def test_a_reward_that_comes_later_is_not_graded_yet(run_worker):
    _, events, _ = run_worker("a", handles=None, validate=True)
    assert [event["moment"] for event in events] == ["started", "generated"]
    assert all(event["is_validation"] for event in events)


def test_what_cannot_be_recorded_does_not_end_the_trajectory(run_worker, capsys):
    (result,), events, problems = run_worker("odd")
    assert result.reward_score == 0.5
    assert [event["moment"] for event in events] == ["started"]
    assert "could not be recorded" in problems[0]["text"]
    assert "could not be recorded" in capsys.readouterr().err
