"""An engine with vLLM offline in this process: no server, no port, no process that a kill leaves.

Invariants:
* Each sample has its own seed: concurrent requests affect it only by rounding.
* vLLM holds at most ``concurrency`` requests; the others wait here, so that a stop loses little.
"""

import functools
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.engines import (
    PREFILL_STOP,
    EngineError,
    FailedRequest,
    Generation,
    RequestCheck,
    SampleRequest,
)
from verl_pipeline.evaluation.engines.model_folder import (
    PositionLimit,
    PromptTokenizer,
    check_weights,
    find_model_folder,
    hash_weights,
    read_position_limit,
)
from verl_pipeline.evaluation.eval_settings import EngineConfig
from verl_pipeline.evaluation.task import SamplingParameters
from verl_pipeline.evaluation.token_confidence import measure_token
from verl_pipeline.machine import list_bf16_flags


class VllmEngine:
    """Generates with vLLM; the model is inspected at once and loaded at the first request.

    Args:
        name: folder or hub name of the model.

    Raises:
        EngineError: there is no such model, or no chat template.
    """

    def __init__(self, name: str, config: EngineConfig):
        self.name, self.config = name, config
        self.folder: Path = find_model_folder(name)
        check_weights(self.folder)
        self.prompt_tokenizer = PromptTokenizer(self.folder, config)
        # Longest sequence of the tasks so far, in tokens.
        self._max_sequence = 0
        self._llm: Any = None

    @functools.cached_property
    def position_limit(self) -> PositionLimit:
        """The model's limit; reading it imports vLLM."""
        _set_environment()
        return read_position_limit(self.folder, self._choose_dtype(), self.config.rope_parameters)

    def describe_model(self) -> dict[str, Any]:
        return {"name": self.name, "weights": hash_weights(self.folder)}

    def describe_settings(self) -> dict[str, Any]:
        recorded = self.config.top_logprobs
        return {
            **({} if recorded is None else {"top_logprobs": recorded}),
            "kind": "vllm",
            "dtype": self._choose_dtype(),
            "position_limit": self.position_limit.limit,
            "position_limit_rests_on": self.position_limit.source,
            "rope_parameters": self.position_limit.rope_parameters,
            "chat_template_kwargs": self.config.chat_template_kwargs,
            "chat_template": (
                hashlib.sha256(self.prompt_tokenizer.tokenizer.chat_template.encode()).hexdigest()
            ),
        }

    def check_requests(
        self, requests: Iterable[SampleRequest], sampling: SamplingParameters, extra_tokens: int = 0
    ) -> RequestCheck:
        longest_prompt = max(
            (len(self.prompt_tokenizer.tokenize_request(request)) for request in requests),
            default=0,
        )
        longest = longest_prompt + sampling.max_tokens
        model_limit, own_limit = self.position_limit.limit or sys.maxsize, self.config.max_model_len
        if own_limit and own_limit > model_limit:
            raise EngineError(
                f"engine.max_model_len={own_limit}: the model holds {model_limit} "
                f"({self.position_limit.source}): set it to at most {model_limit}, or scale the "
                "model's positions with engine.rope_parameters"
            )
        limit = own_limit or model_limit
        if longest > limit:
            source = "engine.max_model_len" if own_limit else self.position_limit.source
            remedy = (
                "raise engine.max_model_len"
                if own_limit
                else "scale its positions with engine.rope_parameters"
            )
            raise EngineError(
                f"sampling.max_tokens={sampling.max_tokens} and the longest prompt make {longest} "
                f"tokens, but the model holds {limit} ({source}): set sampling.max_tokens to at "
                f"most {limit - longest_prompt}, or {remedy}"
            )
        self._max_sequence = max(self._max_sequence, min(longest + extra_tokens, limit))
        return RequestCheck()

    def generate(
        self, requests: Iterable[SampleRequest], sampling: SamplingParameters
    ) -> Iterator[tuple[SampleRequest, Generation | FailedRequest]]:
        engine = self._load_engine()
        waiting = iter(requests)
        running: dict[str, SampleRequest] = {}
        while True:
            for request in islice(waiting, self.config.concurrency - len(running)):
                key = f"{request.task}/{request.id}/{request.sample}"
                prompt = {"prompt_token_ids": self.prompt_tokenizer.tokenize_request(request)}
                try:
                    engine.add_request(key, prompt, self._make_parameters(request, sampling))
                except ValueError as error:  # a prompt of the second round may be too long
                    yield request, FailedRequest(str(error))
                else:
                    running[key] = request
            if not running:
                return
            for output in engine.step():
                if output.finished:
                    request = running.pop(output.request_id)
                    opening = request.prefill or self.prompt_tokenizer.find_thought_opening(request)
                    yield request, _make_generation(opening, output, self.config.top_logprobs)

    def close(self) -> None:
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None

    def _make_parameters(self, request: SampleRequest, sampling: SamplingParameters) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=sampling.max_tokens,
            seed=request.seed,
            logprobs=self.config.top_logprobs or 0,  # 0: of the sampled token only
            stop=[PREFILL_STOP] if request.prefill else None,
            include_stop_str_in_output=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _load_engine(self) -> Any:
        if self._llm is None:
            on_cpu = _set_environment()
            if on_cpu:
                import torch

                torch.set_num_threads(self.config.threads or len(os.sched_getaffinity(0)))
            from vllm import LLM

            max_model_len = self.config.max_model_len or self._max_sequence
            self._llm = LLM(
                model=str(self.folder),
                dtype=self._choose_dtype(),
                max_model_len=max_model_len,
                max_num_seqs=self.config.concurrency,
                tensor_parallel_size=self.config.tensor_parallel_size,
                gpu_memory_utilization=self.config.gpu_memory_utilization,
                hf_overrides=(
                    {"rope_parameters": scaled}
                    if (scaled := self.position_limit.rope_parameters)
                    else {}
                ),
                enable_prefix_caching=True,  # the samples of a problem share its prompt
                seed=0,
                **(_make_cpu_options(max_model_len) if on_cpu else {}),
            )
        return self._llm.llm_engine

    def _choose_dtype(self) -> str:
        if self.config.dtype != "auto" or not _is_cpu_build():
            return self.config.dtype
        return "bfloat16" if list_bf16_flags() else "float32"


def _is_cpu_build() -> bool:
    """Whether the installed vLLM is a build for CPUs."""
    from verl_pipeline.verl_adapter.cpu.vllm_distribution import find_vllm_version, install_finder

    install_finder()
    return "cpu" in (find_vllm_version() or "")


def _set_environment() -> bool:
    """Set the environment for vLLM in this process; return whether vLLM is a build for CPUs."""
    # In a process of its own, vLLM's engine would survive a kill of this process.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if not _is_cpu_build():
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        return False
    from verl_pipeline.verl_adapter.cpu.environment import set_environment

    # vLLM's warnings concern features that a CPU lacks.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    # In GiB; the rollout of a training, which also needs memory for the trainer, sets less.
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
    set_environment()
    return True


def _make_cpu_options(max_model_len: int) -> dict[str, Any]:
    """Return the options of vLLM on a CPU: small blocks, and no chunked prefill.

    vLLM's blocks on CPUs have 128 tokens, so that it would read a shorter prompt anew for each of
    its samples.

    With chunked prefill, vLLM 0.27.1 rewinds the sample's random generator, which a CPU generator
    does not support.
    """
    return {
        "block_size": 32,
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(max_model_len, 8192),
    }


def _make_generation(
    opening: str, output: Any, top_logprobs: int | None
) -> Generation | FailedRequest:
    [answer] = output.outputs
    if answer.finish_reason not in ("stop", "length"):
        return FailedRequest(f"vLLM ended it with {answer.finish_reason!r}")
    count = len(answer.token_ids)
    mean = (
        answer.cumulative_logprob / count
        if count and answer.cumulative_logprob is not None
        else None
    )
    recorded = None
    if top_logprobs is not None:
        recorded = [
            measure_token(
                places[token].logprob,
                [(place.rank, place.logprob) for place in places.values()],
                top_logprobs,
            )
            for token, places in zip(answer.token_ids, answer.logprobs, strict=True)
        ]
    prompt_tokens = len(output.prompt_token_ids)
    return Generation(
        opening + answer.text, prompt_tokens, count, answer.finish_reason, mean, recorded
    )
