"""A worker's trajectories are recorded as they live, fail and are graded."""

import asyncio
import json
import math
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest

from verl_pipeline.telemetry import recorder as recorder_module
from verl_pipeline.telemetry.recorder import RunTarget, find_recorder
from verl_pipeline.verl_adapter.telemetry import agent_loops
from verl_pipeline.verl_adapter.telemetry.agent_loops import REPLICA_LANES, record_worker

SERVER = "10.0.0.1:8000"
# For a place.
WAIT_S = 0.01


class Client:
    """Stands for verl's client."""

    async def _acquire_server(self, request_id, **extra):
        return SERVER, request_id

    async def generate(self, request_id):
        return await self._acquire_server(request_id)

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
        await self.llm_client.generate(uid)
        if uid == "fails":
            raise RuntimeError("no server\nfor this")
        extra = {"min_global_steps": 3, "max_global_steps": 4, "first_token_at": 5.25}
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
        worker.name_worker(3)

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

        return results, read("trajectories"), read("spans"), read("problems")

    return run


def test_each_trajectory_has_its_moments_with_what_is_known_then(run_worker):
    _, events, spans, _ = run_worker("a", "b", lanes={SERVER: "replica 1"})
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
                "first_token": 5.25,
                "limit": 16,
            }.items()
        )
        assert graded.items() >= {"moment": "graded", "reward": 0.5}.items()
        assert started["t"] <= generated["t"] <= graded["t"]
        assert "batch" not in started  # verl's modes have none beforehand
    # One span covers both rewards, which were awaited at once.
    (span,) = spans
    assert (span["pool"], span["lane"], span["detail"]) == ("reward", "worker 3", {"rewards": 2})


@pytest.mark.parametrize("mode", ["drained", "rolling", "in_flight"])
def test_past_the_barrier_a_trajectory_begins_when_it_has_its_place(run_worker, made_header, mode):
    header = replace(made_header, mode="one_off_pipeline", staleness=1, weight_sync_mode=mode)
    _, events, _, _ = run_worker("a", header=header, lanes={SERVER: "replica 1"})
    moments = [event["moment"] for event in events]
    if mode == "drained":
        assert moments == ["started", "generated", "graded"]
        return
    assert moments == ["started", "begun", "generated", "graded"]
    started, begun = events[:2]
    assert begun["replica"] == "replica 1" and begun["batch"] == 7
    assert begun["t"] - started["t"] >= 0.9 * WAIT_S


def test_a_trajectory_of_several_versions_tells_their_tokens(run_worker):
    _, events, _, _ = run_worker("a", "mixed")
    spans = {
        event["prompt"]: event.get("version_spans")
        for event in events
        if event["moment"] == "generated"
    }
    assert spans == {"a": None, "mixed": "3:2 4:1"}


def test_a_failure_is_the_last_moment_and_still_raised(run_worker):
    (error,), events, spans, _ = run_worker("fails")
    assert isinstance(error, RuntimeError)
    assert [event["moment"] for event in events] == ["started", "failed"]
    assert events[-1]["reason"] == "RuntimeError: no server"
    assert events[-1]["replica"] == SERVER
    assert spans == []


def test_a_reward_that_is_no_number_is_not_known(run_worker):
    _, events, _, _ = run_worker("a", reward=math.nan)
    assert events[-1]["moment"] == "graded" and "reward" not in events[-1]


def test_a_reward_that_comes_later_is_not_graded_yet(run_worker):
    _, events, _, _ = run_worker("a", handles=None, validate=True)
    assert [event["moment"] for event in events] == ["started", "generated"]
    assert all(event["is_validation"] for event in events)


def test_what_cannot_be_recorded_does_not_end_the_trajectory(run_worker, capsys):
    (result,), events, _, problems = run_worker("odd")
    assert result.reward_score == 0.5
    assert [event["moment"] for event in events] == ["started"]
    assert "could not be recorded" in problems[0]["text"]
    assert "could not be recorded" in capsys.readouterr().err
