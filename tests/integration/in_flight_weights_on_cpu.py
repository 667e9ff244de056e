"""A real vLLM replica that changes its weights while requests run; run by
test_in_flight_weights.py.

What must come out is computed with transformers, token by token: the log-probs of tokens that one
model sampled and another one went on from, with the first one's KV cache or with its own.
"""

import asyncio
import re
from dataclasses import replace

import pytest
import ray
import torch
from hydra import compose, initialize_config_module
from ray.util.placement_group import placement_group
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, DynamicCache
from verl.workers.rollout.replica import get_rollout_replica_class

from tests.helpers.patience import scale_deadline
from verl_pipeline.testing.tiny_run import make_overrides, write_model
from verl_pipeline.trainer.version_spans import VersionSpan, parse_spans
from verl_pipeline.verl_adapter.cpu.environment import set_environment
from verl_pipeline.verl_adapter.rollout.llm_client import TurnBudgetClient, conversation_spans
from verl_pipeline.verl_adapter.rollout.rollout_servers import PlacedServerManager, end_engines
from verl_pipeline.verl_adapter.rollout.versioned_replica import version_servers

pytestmark = pytest.mark.timeout(400)

POSITIONS = 1024
TOKENS = 500
REQUESTS = 5
# vLLM's and transformers' sums differ in their order; another model's or cache's log-probs differ
# by more than 1 somewhere.
TOLERANCE = 0.01
# Whole blocks of 32 tokens.
LONG_PROMPT = [4 + place % 40 for place in range(96)]


class FolderEngine:
    """A checkpoint engine that finds the version's weights in a folder."""

    wire_format = "named_tensors"

    def __init__(self, folders):
        self.folders = folders

    async def receive_weights(self, global_steps):
        folder = self.folders[global_steps % len(self.folders)]
        for name, tensor in load_file(f"{folder}/model.safetensors").items():
            yield name, tensor


def use_folders(worker, folders):
    worker.checkpoint_engine = FolderEngine(folders)


def count_tokens(server):
    """Tokens that vLLM's engine has sampled for running requests, as the server knows."""
    states = server.engine.output_processor.request_states.values()
    return sum(state.detokenizer.num_output_tokens() for state in states)


def remove_salt(server):
    """A planted fault."""
    server.engine.generate = server._engine_generate


def restore_salt(server):
    server.engine.generate = server._generate


def write_models(folder):
    """Two models that disagree, of one configuration."""
    folders = [write_model(folder / f"model-{version}") for version in range(2)]
    for version, model in enumerate(folders):
        generator = torch.Generator().manual_seed(version)
        weights = load_file(f"{model}/model.safetensors")
        for name, tensor in weights.items():
            if tensor.ndim == 2:
                weights[name] = torch.randn(tensor.shape, generator=generator) / 6
        save_file(weights, f"{model}/model.safetensors", metadata={"format": "pt"})
        config = (model / "config.json").read_text()
        (model / "config.json").write_text(
            re.sub(r'("max_position_embeddings": )\d+', rf"\g<1>{POSITIONS}", config)
        )
    return folders


class Replica:
    """One replica of verl's manager with its client, versions 0, 2, ... of one model and 1, 3, ...
    of the other.
    """

    def __init__(self, manager, folders):
        (self.replica,) = manager.get_replicas()
        (self.server,), (self.worker,) = self.replica.servers, self.replica.workers
        self.client = manager.get_client(TurnBudgetClient)
        self.models = [AutoModelForCausalLM.from_pretrained(folder).eval() for folder in folders]
        self.version = -1
        ray.get(self.worker.__ray_call__.remote(use_folders, [str(folder) for folder in folders]))

    async def load(self, version):
        """verl's own load."""
        await self.worker.update_weights.remote(global_steps=version)
        self.version = version

    async def change(self, keep_kv):
        """A change to the next version while requests run."""
        frozen = await self.server.freeze.remote(keep_kv=keep_kv)
        await self.load(self.version + 1)
        await self.server.thaw.remote(self.version)
        return frozen

    async def count_tokens(self):
        return await self.server.__ray_call__.remote(count_tokens)

    async def wait_for_tokens(self, tokens):
        while await self.count_tokens() < tokens:
            await asyncio.sleep(0.01)

    def ask(self, prompt, tokens=TOKENS, request=None):
        return asyncio.ensure_future(
            self.client.generate(
                request or str(prompt),
                prompt_ids=prompt,
                sampling_params={
                    "max_tokens": tokens,
                    "ignore_eos": True,
                    "temperature": 1.0,
                    "logprobs": True,
                },
            )
        )

    def check(self, prompt, answer, spans, keep_kv):
        """Whether the answer's log-probs are those of ``spans``."""
        expected = self.compute_log_probs(prompt + answer.token_ids, len(prompt), spans, keep_kv)
        return (expected - torch.tensor(answer.log_probs)).abs().max() < TOLERANCE

    @torch.no_grad()
    def compute_log_probs(self, tokens, begin, spans, keep_kv):
        """Of the tokens from ``begin`` on; each span's model sees what stands before, through the
        caches of the earlier ones or its own.
        """
        ids, cache, found = torch.tensor([tokens]), DynamicCache(), []
        done, end = 0, begin
        for span in spans:
            end += span.tokens
            if not keep_kv:
                cache, done = DynamicCache(), 0
            model = self.models[span.version % 2]
            logits = model(ids[:, done : end - 1], past_key_values=cache, use_cache=True).logits[0]
            targets = ids[0, end - span.tokens : end]
            log_probs = logits[-span.tokens :].log_softmax(-1)
            found.append(log_probs.gather(1, targets[:, None])[:, 0])
            done = end - 1
        return torch.cat(found)


@pytest.fixture(scope="module")
def replica(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in-flight")
    folders = write_models(folder)
    set_environment()
    rollout = "actor_rollout_ref.rollout"
    with initialize_config_module("verl_pipeline.config", version_base=None):
        config = compose(
            "one_off_pipeline",
            [
                *make_overrides(folder),
                f"actor_rollout_ref.model.path={folders[0]}",
                f"{rollout}.nnodes=1",
                f"{rollout}.n_gpus_per_node=1",
                f"{rollout}.max_model_len={POSITIONS}",
                f"{rollout}.response_length={TOKENS}",
                f"{rollout}.prompt_length={POSITIONS - TOKENS}",
                f"{rollout}.checkpoint_engine.backend=gloo",
                f"{rollout}.checkpoint_engine.custom_backend_module="
                "verl_pipeline.verl_adapter.weights.checkpoint_engine",
            ],
        )
    ray.init("local", num_cpus=8, num_gpus=1, include_dashboard=False, log_to_driver=False)
    group = placement_group([{"CPU": 2, "GPU": 1}])
    ray.get(group.ready())

    class Manager(PlacedServerManager):
        rollout_replica_class = version_servers(get_rollout_replica_class("vllm"))

    manager = Manager.create(config, [[group]])
    yield Replica(manager, folders)
    end_engines(manager)
    ray.shutdown()


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, scale_deadline(120)))


def make_prompts():
    """Of different lengths, none in a block of another."""
    return [[4 + number, *LONG_PROMPT[: 5 * number + 1]] for number in range(REQUESTS)]


def read_spans(answer):
    spans = parse_spans(answer.extra_fields["version_spans"])
    assert sum(span.tokens for span in spans) == len(answer.token_ids)
    versions = [span.version for span in spans]
    assert answer.extra_fields["min_global_steps"] == versions[0]
    assert answer.extra_fields["max_global_steps"] == versions[-1]
    return spans


def move_boundary(spans, by):
    first, second, *others = spans
    moved = [replace(first, tokens=first.tokens + by), replace(second, tokens=second.tokens - by)]
    return [*moved, *others]


@pytest.mark.parametrize("keep_kv", [True, False])
def test_every_token_is_counted_for_the_version_that_sampled_it(replica, keep_kv):
    prompts = make_prompts()

    async def sample():
        await replica.load(replica.version + 1)
        answers = [replica.ask(prompt) for prompt in prompts]
        for tokens in (20, 200):
            await replica.wait_for_tokens(REQUESTS * tokens)
            assert await replica.change(keep_kv) == REQUESTS
        return replica.version, await asyncio.gather(*answers)

    last, answers = run(sample())

    def check(by=0, kept=keep_kv):
        return [
            replica.check(prompt, answer, move_boundary(read_spans(answer), by), kept)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    for answer in answers:
        assert [span.version for span in read_spans(answer)] == [last - 2, last - 1, last]
    assert all(check())
    # The comparison sees one token, and whose KV cache it was.
    assert not all(check(by=1)) and not all(check(by=-1))
    assert not any(check(kept=not keep_kv))


@pytest.mark.parametrize("keep_kv", [True, False])
def test_nothing_is_sampled_between_freeze_and_thaw(replica, keep_kv):
    async def sample():
        await replica.load(replica.version + 1)
        running = replica.ask(LONG_PROMPT)
        await replica.wait_for_tokens(20)
        await replica.server.freeze.remote(keep_kv=keep_kv)
        before = await replica.count_tokens()
        late = replica.ask(LONG_PROMPT, tokens=50, request="late")
        await asyncio.sleep(0.5)  # as long as some 200 tokens take
        between = await replica.count_tokens()
        await replica.load(replica.version + 1)
        await replica.server.thaw.remote(replica.version)
        return before, between, await running, await late

    before, between, running, late = run(sample())
    last = replica.version
    assert before == between == read_spans(running)[0].tokens
    assert read_spans(late) == [VersionSpan(last, 50)]
    assert replica.check(LONG_PROMPT, late, read_spans(late), keep_kv)
    assert not replica.check(LONG_PROMPT, late, [VersionSpan(last - 1, 50)], keep_kv)
    # The old version has a prefix of this prompt in its cache.
    assert late.extra_fields["num_cached_tokens"] == 0


@pytest.mark.parametrize("is_salted", [True, False])
def test_a_request_takes_no_prefix_of_another_version(replica, is_salted):
    """Without the salt it does, while a request runs: vLLM resets no cache then."""

    async def sample():
        if not is_salted:
            await replica.server.__ray_call__.remote(remove_salt)
        await replica.load(replica.version + 1)
        running = replica.ask([9, 9, 9])
        await replica.wait_for_tokens(1)
        cached = []
        for changes in (False, False, True, False):
            if changes:
                assert await replica.change(keep_kv=True) == 1
            answer = await replica.ask(LONG_PROMPT, tokens=1, request=f"short {len(cached)}")
            cached.append(answer.extra_fields["num_cached_tokens"])
        await running
        await replica.server.__ray_call__.remote(restore_salt)
        return cached

    old_prefix = 0 if is_salted else 64
    assert run(sample()) == [0, 64, old_prefix, 64]


def test_a_conversation_has_the_spans_of_its_turns_and_interrupted_attempts(replica):
    async def sample():
        conversation_spans.set({})
        assert await replica.change(keep_kv=True) == 0  # nothing runs
        first = await replica.ask([5, 6, 7], tokens=30, request="talk")
        fields = dict(first.extra_fields)
        second = replica.ask([5, 6, 7, *first.token_ids, 8], request="talk")
        await replica.wait_for_tokens(20)
        await replica.replica.abort_all_requests()
        await replica.load(replica.version + 1)
        await replica.replica.resume_generation()
        return fields, first, await second

    kept, first, second = run(sample())
    spans = parse_spans(kept["version_spans"])
    # verl's agent loop of tools keeps the fields of the first turn.
    assert spans == parse_spans(second.extra_fields["version_spans"])
    assert [span.version for span in spans] == [replica.version - 1, replica.version]
    assert sum(span.tokens for span in spans) == len(first.token_ids) + len(second.token_ids)
    assert spans[0].tokens > len(first.token_ids)
    assert second.extra_fields["min_global_steps"] == replica.version - 1
