"""What our client asks of verl's servers, through the installed client and the installed server:
only Ray's transport and vLLM's engine are left out.
"""

import asyncio
import importlib
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.utils import normalize_token_ids
from verl.workers.rollout.llm_server import FullyAsyncLLMServerClient, LLMServerClient

from verl_pipeline.trainer.stall import Job, QueueEnds, current_job
from verl_pipeline.verl_adapter.cpu.vllm_distribution import install_finder
from verl_pipeline.verl_adapter.rollout.llm_client import TurnBudgetClient, conversation_spans

# verl asks for the version of vLLM when its servers are imported.
install_finder()
vllm_async_server = importlib.import_module("verl.workers.rollout.vllm_rollout.vllm_async_server")

SERVER = "127.0.0.1:1234"


class Engine:
    """vLLM's engine: notes the limit of each request; answers with ``answers`` tokens at most, the
    first ``aborts`` times interrupted.
    """

    def __init__(self, answers=10**9, aborts=0):
        self.granted, self.answers, self.aborts = [], answers, aborts
        self.seeds = []

    async def generate(self, *, prompt, sampling_params, **_arguments):
        self.granted.append(sampling_params.max_tokens)
        self.seeds.append(sampling_params.seed)
        is_aborted = len(self.granted) <= self.aborts
        count = min(self.answers, sampling_params.max_tokens)
        output = SimpleNamespace(
            token_ids=[7] * count, finish_reason="abort" if is_aborted else "length"
        )
        yield SimpleNamespace(outputs=[output], num_cached_tokens=0, prompt_logprobs=None)


def make_server(engine, rollout):
    """verl's server without its start."""
    server = object.__new__(vllm_async_server.vLLMHttpServer)
    server.config = OmegaConf.create(
        dict(rollout) | {"full_determinism": False, "enable_rollout_routing_replay": False}
    )
    server.config.mtp = None
    server.model_config = SimpleNamespace(processor=None, lora_rank=0, lora={})
    server._disaggregation_role = None
    server._submission_paused, server._admitting = False, 0
    server.replica_rank, server.global_steps, server.engine = 0, 3, engine
    return server


def as_handle(server):
    return SimpleNamespace(generate=SimpleNamespace(remote=server.generate))


def make_client(client_class, server, rollout):
    """verl's client with a load balancer that knows one server."""

    async def acquire(request_id):
        return SERVER, as_handle(server)

    async def list_nothing():
        return []

    balancer = SimpleNamespace(
        acquire_server=SimpleNamespace(remote=acquire),
        release_server=SimpleNamespace(remote=lambda **_arguments: None),
        require_acquire_fields=SimpleNamespace(remote=list_nothing),
        require_release_fields=SimpleNamespace(remote=list_nothing),
    )
    config = OmegaConf.create({"actor_rollout_ref": {"rollout": {"name": "vllm"} | rollout}})
    return client_class(config, balancer)


def ask(client_class, rollout, conversation, sampling_params=None, **engine):
    """What verl's engine was granted, and the client's answer."""
    made = Engine(**engine)
    client = make_client(client_class, make_server(made, rollout), rollout)
    answer = asyncio.run(
        client.generate(
            "trajectory", prompt_ids=[5] * conversation, sampling_params=sampling_params or {}
        )
    )
    return made.granted, answer


lengths = st.tuples(st.integers(1, 60), st.integers(1, 60), st.integers(1, 150), st.integers(0, 20))


@given(lengths)
@settings(max_examples=150, deadline=None)
def test_a_turn_is_granted_what_verls_server_grants_by_default(drawn):
    prompt_length, response_length, conversation, more = drawn
    rollout = {
        "prompt_length": prompt_length,
        "response_length": response_length,
        "max_model_len": max(prompt_length + response_length, conversation + 1) + more,
    }
    # The plain client passes no limit on: the server applies its default.
    default, _answer = ask(LLMServerClient, rollout, conversation)
    ours, answer = ask(TurnBudgetClient, rollout, conversation)
    assert ours == default and len(answer.token_ids) == ours[0]
    left = prompt_length + response_length - conversation
    assert ours[0] <= max(1, left)


ROLLOUT = {"prompt_length": 40, "response_length": 30, "max_model_len": 500}


def test_verls_own_client_grants_a_whole_response_to_every_turn():
    """Why ours exists; once this fails, verl has mended it."""
    granted, _answer = ask(FullyAsyncLLMServerClient, ROLLOUT, conversation=65)
    assert granted == [30]
    granted, _answer = ask(TurnBudgetClient, ROLLOUT, conversation=65)
    assert granted == [5]


@pytest.mark.parametrize("limit", ["max_tokens", "max_new_tokens"])
def test_a_limit_of_the_agent_loops_own_is_left_alone(limit):
    given_params = {limit: 12}
    granted, _answer = ask(TurnBudgetClient, ROLLOUT, 65, given_params)
    assert granted == [12] and given_params == {limit: 12}


@pytest.mark.parametrize("limit", ["max_tokens", "max_new_tokens"])
def test_a_limit_of_none_is_none(limit):
    granted, _answer = ask(TurnBudgetClient, ROLLOUT, 65, {limit: None, "temperature": 0.5})
    assert granted == [5]


def test_an_interrupted_turn_goes_on_within_its_budget_and_has_its_versions(monkeypatch):
    async def no_pause(_seconds):
        return None

    monkeypatch.setattr("verl.workers.rollout.llm_server.asyncio.sleep", no_pause)
    granted, answer = ask(TurnBudgetClient, ROLLOUT, 60, answers=4, aborts=1)
    assert granted == [10, 6] and len(answer.token_ids) == 8
    fields = answer.extra_fields
    assert (fields["min_global_steps"], fields["max_global_steps"]) == (3, 3)
    assert fields["version_spans"] == [[3, 8]]


@pytest.mark.parametrize("seed", [None, 0, 11])
def test_every_request_of_a_conversation_has_a_seed_of_its_own_or_none_has(monkeypatch, seed):
    async def no_pause(_seconds):
        return None

    async def run(engine):
        conversation_spans.set({})
        client = make_client(TurnBudgetClient, make_server(engine, ROLLOUT), ROLLOUT)
        for tokens in (9, 15):
            await client.generate("x", prompt_ids=[5] * tokens, sampling_params={"seed": seed})
        return engine.seeds

    monkeypatch.setattr("verl.workers.rollout.llm_server.asyncio.sleep", no_pause)
    # An interrupted attempt, the rest of its turn, another turn.
    seeds = asyncio.run(run(Engine(answers=4, aborts=1)))
    assert seeds == asyncio.run(run(Engine(answers=4, aborts=1)))
    assert seeds[0] == seed
    assert len(set(seeds)) == (1 if seed is None else 3)


class ChangingEngine(Engine):
    """Its server tells the next version with each answer, and the spans of ``told``, if any."""

    def __init__(self, told=None, **options):
        super().__init__(**options)
        self.told = told

    def attach(self, server):
        generate = server.generate

        async def tell(*args, **kwargs):
            answer = await generate(*args, **kwargs)
            server.global_steps += 1
            if self.told:
                answer.extra_fields["version_spans"] = self.told.pop(0)
            return answer

        server.generate = tell
        return server


def talk(engine, turns):
    """The answers' ``extra_fields`` in one trajectory, as they are at its end."""

    async def run():
        conversation_spans.set({})
        server = engine.attach(make_server(engine, ROLLOUT))
        client = make_client(TurnBudgetClient, server, ROLLOUT)
        return [
            (await client.generate("x", prompt_ids=[5] * 9, sampling_params={})).extra_fields
            for _turn in range(turns)
        ]

    return asyncio.run(run())


def test_turns_and_attempts_of_a_conversation_share_their_spans(monkeypatch):
    async def no_pause(_seconds):
        return None

    monkeypatch.setattr("verl.workers.rollout.llm_server.asyncio.sleep", no_pause)
    first, second = talk(ChangingEngine(answers=4, aborts=1), turns=2)
    # Two attempts, then one turn more; an agent loop of tools keeps the first turn's fields.
    assert first["version_spans"] == second["version_spans"] == [[3, 4], [4, 4], [5, 4]]
    assert (first["min_global_steps"], first["max_global_steps"]) == (3, 4)
    assert (second["min_global_steps"], second["max_global_steps"]) == (3, 5)


def test_a_servers_own_spans_go_before_its_version_at_the_end():
    told = [[[1, 3], [2, 1]], [[2, 2], [3, 2]]]
    first, second = talk(ChangingEngine(told=told, answers=4), turns=2)
    assert first["version_spans"] == second["version_spans"] == [[1, 3], [2, 3], [3, 2]]
    assert (second["min_global_steps"], second["max_global_steps"]) == (1, 3)


def test_conversations_have_their_own_spans():
    async def run():
        conversation_spans.set({})
        client = make_client(TurnBudgetClient, make_server(Engine(answers=4), ROLLOUT), ROLLOUT)
        return [
            (await client.generate(name, prompt_ids=[5], sampling_params={})).extra_fields
            for name in "aba"
        ]

    first, other, again = asyncio.run(run())
    assert first["version_spans"] == again["version_spans"] == [[3, 8]]
    assert other["version_spans"] == [[3, 4]]


def test_a_conversation_in_any_of_verls_forms_has_its_length():
    tensor = pytest.importorskip("torch").tensor([[5] * 65])
    assert len(normalize_token_ids(tensor)) == 65
    client = make_client(TurnBudgetClient, make_server(engine := Engine(), ROLLOUT), ROLLOUT)
    asyncio.run(client.generate("x", prompt_ids=tensor, sampling_params={}))
    assert engine.granted == [5]


class SlowEngine(Engine):
    async def generate(self, **arguments):
        await asyncio.sleep(0.01)
        async for output in super().generate(**arguments):
            yield output


class BrokenEngine(Engine):
    async def generate(self, **_arguments):
        await asyncio.sleep(0.01)
        raise ConnectionError("planted")
        yield


@pytest.mark.parametrize("how", ["ends", "breaks", "is given up"])
def test_a_trajectory_waits_in_the_queue_of_its_server(how):
    """Answers and errors are ends there; a request that was given up is none."""

    async def run():
        ends = QueueEnds()
        job = Job("trajectory", ends)
        current_job.set(job)
        engine = BrokenEngine() if how == "breaks" else SlowEngine()
        client = make_client(TurnBudgetClient, make_server(engine, ROLLOUT), ROLLOUT)
        turn = asyncio.create_task(client.generate("x", prompt_ids=[5] * 9, sampling_params={}))
        await asyncio.sleep(0)
        seen = set()
        while not turn.done():
            seen.add(job.describe_stall().partition(": ")[2])
            if how == "is given up" and len(seen) == 2:
                turn.cancel()
            await asyncio.sleep(0)
        outcome = (await asyncio.gather(turn, return_exceptions=True))[0]
        assert f"it waits for rollout server {SERVER}, where nothing ended" in seen
        assert job.describe_stall().endswith("it is in its own code")
        return outcome, set(ends.list_ages())

    outcome, ended = asyncio.run(run())
    assert isinstance(outcome, Exception) == (how == "breaks")
    assert isinstance(outcome, asyncio.CancelledError) == (how == "is given up")
    assert ended == (set() if how == "is given up" else {f"rollout server {SERVER}"})
