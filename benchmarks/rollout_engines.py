"""The two sides of ``benchmarks.rollout``: verl's rollout pool and the same vLLM offline, each in
its own process.

Invariants:
* Both sides get the same prompts, lengths, sampling and engine settings.
* Every trajectory has the length that was asked for (checked), whatever is sampled.
* A side that could not be built, or that failed, leaves no process behind.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.pools import pools

GROUP = 4  # samples a prompt
TAIL = (0.25, 0.5, 0.75, 2.5)  # lengths of a group's samples, in mean lengths
PROMPT_TOKENS, MAX_PROMPT_TOKENS, MAX_LENGTH = 96, 128, 80
# Longest waits, in seconds: for both sides to be ready, and for one measurement.
START_S, MEASURE_S = 420.0, 240.0

Request = tuple[
    list[dict], list[int], list[int]
]  # messages, their token ids, lengths of the samples
Answer = Callable[[Any], dict[str, float]]


@dataclass(frozen=True)
class Servers:
    """Settings that need engines of their own; ``max_num_seqs`` sequences run at once on each of
    the replicas.
    """

    name: str = "1 replica"
    replicas: int = 1
    max_num_seqs: int = 16
    prefix_cache: bool = True


@dataclass(frozen=True)
class Case:
    """One measurement: what is asked of the servers, and through what.

    Attributes:
        in_flight: trajectories, all submitted at once.
        tail: long-tailed lengths (:data:`TAIL`) in place of equal ones; the total is the same.
        agent_loop: through agent loop workers and TransferQueue, or straight to verl's client.
        reward_s: seconds that a reward waits; None for no reward.
        sync: the weights are sent before the batch; the time counts.
    """

    name: str
    in_flight: int = 16
    tail: bool = False
    agent_loop: bool = True
    reward_s: float | None = 0.0
    sync: bool = False


@dataclass(frozen=True)
class Work:
    """Prompts and lengths, the same for pool and reference; ``nonce`` (6 digits) makes the prompts'
    first words new.
    """

    in_flight: int
    tail: bool
    mean_tokens: int
    nonce: int = 0

    def lengths(self) -> list[int]:
        """Tokens of the samples of one prompt; every prompt's are the same."""
        return [round(self.mean_tokens * share) for share in (TAIL if self.tail else [1.0] * GROUP)]


def requests_of(work: Work, tokenizer) -> list[Request]:
    """The prompts of ``work``, each of at least :data:`PROMPT_TOKENS` tokens."""
    found = []
    for position in range(work.in_flight // GROUP):
        text, ids = f"{work.nonce:06d}{position:02d}: tell me", []
        while len(ids) < PROMPT_TOKENS:
            text += " more about a cat and a dog"
            messages = [{"role": "user", "content": text}]
            ids = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False
            )
        found.append((messages, ids, work.lengths()))
    return found


@contextmanager
def offline(servers: Servers, model: str) -> Iterator[Answer]:
    """vLLM without verl; answers (work, rank of this process) with the seconds for its share of the
    prompts.
    """
    from vllm import LLM, SamplingParams

    engine = LLM(
        model=model,
        dtype="float32",
        enforce_eager=True,
        block_size=32,
        max_num_seqs=servers.max_num_seqs,
        max_model_len=MAX_PROMPT_TOKENS + MAX_LENGTH,
        enable_prefix_caching=servers.prefix_cache,
        # What verl sets and vLLM does not.
        max_num_batched_tokens=8192,
        logprobs_mode="processed_logprobs",
    )
    tokenizer = engine.get_tokenizer()

    def answer(question: tuple[Work, int]) -> dict[str, Any]:
        work, rank = question
        share = requests_of(work, tokenizer)[rank :: servers.replicas]
        prompts = [
            {"prompt_token_ids": ids} for _messages, ids, lengths in share for _length in lengths
        ]
        wanted = [length for _messages, _ids, lengths in share for length in lengths]
        params = [
            SamplingParams(temperature=1.0, logprobs=0, max_tokens=n, ignore_eos=True)
            for n in wanted
        ]
        start = time.perf_counter()
        outputs = engine.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - start
        _check([len(output.outputs[0].token_ids) for output in outputs], wanted, "vLLM offline")
        return {"seconds": seconds}

    try:
        yield answer
    finally:
        engine.llm_engine.engine_core.shutdown()


@contextmanager
def pool(servers: Servers, model: str) -> Iterator[Answer]:
    """verl's servers beside a trainer that the weights come from; answers (work, case) with
    seconds.
    """
    from verl_pipeline.verl_adapter.agent_loop import PipelineAgentLoopManager

    with tempfile.TemporaryDirectory(prefix="rollout-") as directory:
        with pools(_overrides(Path(directory), servers, model)) as trainer:
            manager = PipelineAgentLoopManager.create(
                config=trainer.config,
                llm_client=trainer.get_llm_client(),
                reward_loop_worker_handles=trainer.get_reward_handles(),
            )
            yield partial(_measure_pool, trainer, manager)


def _overrides(directory: Path, servers: Servers, model: str) -> list[str]:
    from benchmarks import fixed_length

    deadlines = "trainer.v1.one_off_pipeline.deadlines"
    rollout = "actor_rollout_ref.rollout"
    return [
        f"actor_rollout_ref.model.path={model}",
        f"data.max_prompt_length={MAX_PROMPT_TOKENS}",
        f"data.max_response_length={MAX_LENGTH}",
        f"{rollout}.n_gpus_per_node={servers.replicas}",
        f"{rollout}.n={GROUP}",
        f"{rollout}.max_num_seqs={servers.max_num_seqs}",
        f"{rollout}.max_model_len={MAX_PROMPT_TOKENS + MAX_LENGTH}",
        f"{rollout}.enable_prefix_caching={servers.prefix_cache}",
        f"{rollout}.checkpoint_engine.update_weights_bucket_megabytes=128",
        *fixed_length.overrides(directory),
        f"{deadlines}.start_s={START_S}",
        f"{deadlines}.batch_s={MEASURE_S * 0.8}",
        f"{deadlines}.trajectory_s={MEASURE_S * 0.6}",
        f"{deadlines}.weight_sync_s={MEASURE_S * 0.5}",
    ]


def _measure_pool(trainer, manager, question: tuple[Work, Case]) -> dict[str, Any]:
    work, case = question
    requests = requests_of(work, trainer.tokenizer)
    start = time.perf_counter()
    if case.sync:
        trainer.rollout_pool.send_weights(trainer.rollout_pool.version + 1, given_up=0)
    synced = time.perf_counter()
    if case.agent_loop:
        lengths = _through_agent_loops(trainer, manager, work.nonce, case, requests)
    else:
        lengths = asyncio.run(_straight(trainer.get_llm_client(), requests))
    end = time.perf_counter()
    _check(
        lengths,
        [length for *_prompt, wanted in requests for length in wanted],
        f"the rollout pool, {case.name}",
    )
    return {"seconds": end - start, "sync_seconds": synced - start}


def _through_agent_loops(trainer, manager, batch: int, case: Case, requests) -> list[int]:
    """As the trainer submits a batch and waits for it; returns the responses' lengths, in order."""
    import transfer_queue as tq
    from verl.utils import tensordict_utils as tu

    from verl_pipeline.trainer import prompts

    uids = [prompts.make_uid(batch, position) for position in range(len(requests))]
    columns = {
        "uid": uids,
        "index": list(range(len(requests))),
        "raw_prompt": [messages for messages, _ids, _lengths in requests],
        "data_source": ["benchmark"] * len(requests),
        "reward_model": [{"ground_truth": ""}] * len(requests),
        "extra_info": [
            {
                "index": index,
                "lengths": lengths,
                "reward_s": case.reward_s,
                "reward_s_per_token": 0.0,
            }
            for index, (_messages, _ids, lengths) in enumerate(requests)
        ],
    }
    tag = {"is_prompt": True, "status": "pending", "global_steps": batch, "sessions": GROUP}
    tq.kv_batch_put(keys=uids, partition_id="train", tags=[tag] * len(uids))
    manager.generate_sequences(tu.get_tensordict(columns, {"global_steps": batch}))
    rows, _metrics = trainer.replay_buffer.sample(batch, "train", len(uids))
    lost = trainer.replay_buffer.losses.pop(batch)
    if lost.missing:
        raise RuntimeError(
            f"{lost.missing} of {lost.expected} trajectories failed; the first:\n{lost.first_error}"
        )
    tq.kv_clear(keys=rows.keys, partition_id="train")
    expected = [len(ids) for _messages, ids, lengths in requests for _length in lengths]
    _check([tag["prompt_len"] for tag in rows.tags], expected, "prompts of the agent loops")
    return [tag["response_len"] for tag in rows.tags]


async def _straight(client, requests) -> list[int]:
    sampling = {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "repetition_penalty": 1.0,
        "logprobs": True,
    }
    sampling["ignore_eos"] = True
    outputs = await asyncio.gather(
        *[
            client.generate(
                uuid4().hex, prompt_ids=ids, sampling_params={**sampling, "max_tokens": length}
            )
            for _messages, ids, lengths in requests
            for length in lengths
        ]
    )
    return [len(output.token_ids) for output in outputs]


def _check(found: list[int], wanted: list[int], who: str) -> None:
    if found != wanted:
        raise RuntimeError(
            f"{who}: lengths {found}, {wanted} expected; the figures would compare different work"
        )
