"""The two engines of :mod:`benchmarks.rollout`: verl's rollout pool, and the same vLLM offline.

Each runs in a process of its own (:mod:`benchmarks.rollout_processes`).

Invariants:
* Both engines get the same prompts, lengths, sampling parameters and engine settings.
* Every trajectory has exactly the requested length, which is checked.
* An engine that cannot start, or fails, leaves no process behind.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks.pools import start_pools

if TYPE_CHECKING:
    from verl_pipeline.verl_adapter.trainers.pipelined_trainer import OneOffPipelineTrainer

GROUP_SIZE = 4  # samples per prompt
# Lengths of a group's samples with a long tail, as multiples of the mean length.
TAIL_LENGTHS = (0.25, 0.5, 0.75, 2.5)
MIN_PROMPT_TOKENS, MAX_PROMPT_TOKENS, MAX_RESPONSE_TOKENS = 96, 128, 80
# Timeouts in seconds: for an engine to start, and for one measurement.
START_TIMEOUT_S, MEASURE_TIMEOUT_S = 420.0, 240.0

# Messages, their token ids, and the lengths of the samples in tokens.
PromptRequest = tuple[list[dict], list[int], list[int]]
MeasureFunction = Callable[[Any], dict[str, float]]


@dataclass(frozen=True)
class ServerSettings:
    """Settings that need an engine of their own.

    Attributes:
        name: name in results.
        max_num_seqs: sequences that run at a time on each replica.
    """

    name: str = "1 replica"
    replicas: int = 1
    max_num_seqs: int = 16
    prefix_cache: bool = True


@dataclass(frozen=True)
class RolloutCase:
    """One case to measure.

    Attributes:
        in_flight: number of trajectories, all submitted at once.
        tail: long-tailed lengths (:data:`TAIL_LENGTHS`) instead of equal ones, with the same total.
        agent_loop: requests go through agent loop workers and TransferQueue, or directly to verl's
            client.
        reward_s: seconds that a reward waits; None: no reward.
        sync: the weights are sent before the batch, within the measured time.
    """

    name: str
    in_flight: int = 16
    tail: bool = False
    agent_loop: bool = True
    reward_s: float | None = 0.0
    sync: bool = False


@dataclass(frozen=True)
class RolloutWork:
    """Prompts and lengths of one measurement, the same for pool and reference.

    Attributes:
        nonce: first word of the prompts, at most 6 digits, so that no prompt is in a prefix cache.
    """

    in_flight: int
    tail: bool
    mean_tokens: int
    nonce: int = 0

    def list_lengths(self) -> list[int]:
        """Return the tokens of the samples of one prompt; they are the same for every prompt."""
        multiples = TAIL_LENGTHS if self.tail else [1.0] * GROUP_SIZE
        return [round(self.mean_tokens * multiple) for multiple in multiples]


def make_requests(work: RolloutWork, tokenizer) -> list[PromptRequest]:
    """Return the requests of ``work``; prompts have at least :data:`MIN_PROMPT_TOKENS` tokens."""
    requests = []
    for position in range(work.in_flight // GROUP_SIZE):
        text = f"{work.nonce:06d}{position:02d}: tell me"
        ids: list[int] = []
        while len(ids) < MIN_PROMPT_TOKENS:
            text += " more about a cat and a dog"
            messages = [{"role": "user", "content": text}]
            ids = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False
            )
        requests.append((messages, ids, work.list_lengths()))
    return requests


@contextmanager
def start_offline(servers: ServerSettings, model: str) -> Iterator[MeasureFunction]:
    """Start vLLM without verl.

    The yielded function takes (work, rank of this process) and returns the seconds for the rank's
    share of the prompts.
    """
    from vllm import LLM, SamplingParams

    engine = LLM(
        model=model,
        dtype="float32",
        enforce_eager=True,
        block_size=32,
        max_num_seqs=servers.max_num_seqs,
        max_model_len=MAX_PROMPT_TOKENS + MAX_RESPONSE_TOKENS,
        enable_prefix_caching=servers.prefix_cache,
        # Set by verl, but not vLLM's defaults.
        max_num_batched_tokens=8192,
        logprobs_mode="processed_logprobs",
    )
    tokenizer = engine.get_tokenizer()

    def measure_share(request: tuple[RolloutWork, int]) -> dict[str, Any]:
        work, rank = request
        share = make_requests(work, tokenizer)[rank :: servers.replicas]
        prompts = [
            {"prompt_token_ids": ids} for _messages, ids, lengths in share for _length in lengths
        ]
        requested_lengths = [length for _messages, _ids, lengths in share for length in lengths]
        params = [
            SamplingParams(temperature=1.0, logprobs=0, max_tokens=n, ignore_eos=True)
            for n in requested_lengths
        ]
        start = time.perf_counter()
        outputs = engine.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - start
        lengths = [len(output.outputs[0].token_ids) for output in outputs]
        _check_lengths(lengths, requested_lengths, "vLLM offline")
        return {"seconds": seconds}

    try:
        yield measure_share
    finally:
        engine.llm_engine.engine_core.shutdown()


@contextmanager
def start_pool(servers: ServerSettings, model: str) -> Iterator[MeasureFunction]:
    """Start verl's servers and the trainer that sends them weights.

    The yielded function takes (work, case) and returns the seconds.
    """
    from verl_pipeline.verl_adapter.rollout.agent_loop import PipelineAgentLoopManager

    with tempfile.TemporaryDirectory(prefix="rollout-") as directory:
        with start_pools(_make_overrides(Path(directory), servers, model)) as trainer:
            manager = PipelineAgentLoopManager.create(
                config=trainer.config,
                llm_client=trainer.get_llm_client(),
                reward_loop_worker_handles=trainer.get_reward_handles(),
            )
            yield partial(_measure_pool, trainer, manager)


def _make_overrides(directory: Path, servers: ServerSettings, model: str) -> list[str]:
    from benchmarks import fixed_length

    deadlines = "trainer.v1.one_off_pipeline.deadlines"
    rollout = "actor_rollout_ref.rollout"
    return [
        f"actor_rollout_ref.model.path={model}",
        f"data.max_prompt_length={MAX_PROMPT_TOKENS}",
        f"data.max_response_length={MAX_RESPONSE_TOKENS}",
        f"{rollout}.n_gpus_per_node={servers.replicas}",
        f"{rollout}.n={GROUP_SIZE}",
        f"{rollout}.max_num_seqs={servers.max_num_seqs}",
        f"{rollout}.max_model_len={MAX_PROMPT_TOKENS + MAX_RESPONSE_TOKENS}",
        f"{rollout}.enable_prefix_caching={servers.prefix_cache}",
        f"{rollout}.checkpoint_engine.update_weights_bucket_megabytes=128",
        *fixed_length.make_overrides(directory),
        f"{deadlines}.start_s={START_TIMEOUT_S}",
        f"{deadlines}.batch_s={MEASURE_TIMEOUT_S * 0.8}",
        f"{deadlines}.trajectory_s={MEASURE_TIMEOUT_S * 0.6}",
        f"{deadlines}.weight_sync_s={MEASURE_TIMEOUT_S * 0.5}",
    ]


def _measure_pool(
    trainer: "OneOffPipelineTrainer", manager, request: tuple[RolloutWork, RolloutCase]
) -> dict[str, Any]:
    work, case = request
    requests = make_requests(work, trainer.tokenizer)
    start = time.perf_counter()
    if case.sync:
        trainer.rollout_pool.send_weights((trainer.rollout_pool.version or 0) + 1)
    synced = time.perf_counter()
    if case.agent_loop:
        lengths = _run_agent_loops(trainer, manager, work.nonce, case, requests)
    else:
        lengths = asyncio.run(_call_client(trainer.get_llm_client(), requests))
    end = time.perf_counter()
    _check_lengths(
        lengths,
        [length for *_prompt, sample_lengths in requests for length in sample_lengths],
        f"the rollout pool, {case.name}",
    )
    return {"seconds": end - start, "sync_seconds": synced - start}


def _run_agent_loops(
    trainer: "OneOffPipelineTrainer",
    manager,
    batch: int,
    case: RolloutCase,
    requests: list[PromptRequest],
) -> list[int]:
    """Submit a batch and wait for it as the trainer does; return the response lengths in order."""
    import transfer_queue as tq
    from verl.utils import tensordict_utils as tu

    from verl_pipeline.trainer.trajectory_keys import make_prompt_key

    uids = [make_prompt_key(batch, position) for position in range(len(requests))]
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
    tag = {"is_prompt": True, "status": "pending", "global_steps": batch, "sessions": GROUP_SIZE}
    tq.kv_batch_put(keys=uids, partition_id="train", tags=[tag] * len(uids))
    manager.generate_sequences(tu.get_tensordict(columns, {"global_steps": batch}))
    rows, _metrics = trainer.replay_buffer.sample(batch, "train", len(uids))
    report = trainer.replay_buffer.reports.pop(batch)
    if report.missing:
        raise RuntimeError(
            f"{report.missing} of {report.requested} trajectories failed; the first:\n"
            f"{report.first_error}"
        )
    tq.kv_clear(keys=rows.keys, partition_id="train")
    expected = [len(ids) for _messages, ids, lengths in requests for _length in lengths]
    _check_lengths([tag["prompt_len"] for tag in rows.tags], expected, "prompts of the agent loops")
    return [tag["response_len"] for tag in rows.tags]


async def _call_client(client, requests: list[PromptRequest]) -> list[int]:
    """Send all requests to verl's client at once; return the response lengths in order."""
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


def _check_lengths(lengths: list[int], expected: list[int], engine: str) -> None:
    if lengths != expected:
        raise RuntimeError(
            f"{engine}: lengths {lengths} instead of {expected}: the results would compare "
            "different work"
        )
