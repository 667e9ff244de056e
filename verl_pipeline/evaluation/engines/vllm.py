"""vLLM, offline, in this process: no server, no port, and nothing left if the process is killed.

Invariants:
* Each sample has its own seed: which others run beside it changes nothing but rounding.
* At most ``concurrency`` requests are with vLLM; the others wait here, so that a stop loses little.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.config import EngineConfig
from verl_pipeline.evaluation.engines import PREFILL_STOP, EngineError, Failed, Generation, Request
from verl_pipeline.evaluation.engines.tokens import Prompts, model_folder, positions, weights_hash
from verl_pipeline.evaluation.task import Sampling
from verl_pipeline.machine import list_bf16_flags


class VllmEngine:
    """Looks at the model at once, loads it when first asked.

    Raises:
        EngineError: no such model, or no chat template.
    """

    def __init__(self, name: str, config: EngineConfig):
        self.name, self.config = name, config
        self.folder: Path = model_folder(name)
        self.prompts = Prompts(self.folder, config)
        self.positions = positions(self.folder, config.rope_parameters)
        self._longest = 0
        self._llm: Any = None

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "weights": weights_hash(self.folder)}

    def settings(self) -> dict[str, Any]:
        return {
            "kind": "vllm",
            "dtype": self._dtype(),
            "position_limit": self.positions.limit,
            "position_limit_rests_on": self.positions.rests_on,
            "rope_parameters": self.positions.rope_parameters,
            "chat_template_kwargs": self.config.chat_template_kwargs,
            "chat_template": (
                hashlib.sha256(self.prompts.tokenizer.chat_template.encode()).hexdigest()
            ),
        }

    def check_lengths(self, requests: Iterable[Request], sampling: Sampling, more: int = 0) -> None:
        longest = (
            max((len(self.prompts.tokens(request)) for request in requests), default=0)
            + sampling.max_tokens
        )
        limit = min(self.positions.limit, self.config.max_model_len or self.positions.limit)
        if longest > limit:
            raise EngineError(
                f"sampling.max_tokens={sampling.max_tokens} and the longest prompt make {longest} "
                f"tokens, but the model holds {limit} ({self.positions.rests_on}): set "
                f"sampling.max_tokens to at most {limit - longest + sampling.max_tokens}, or scale "
                "its positions with engine.rope_parameters"
            )
        self._longest = max(self._longest, min(longest + more, limit))

    def generate(
        self, requests: Iterable[Request], sampling: Sampling
    ) -> Iterator[tuple[Request, Generation | Failed]]:
        engine = self._engine()
        waiting = iter(requests)
        running: dict[str, Request] = {}
        while True:
            for request in islice(waiting, self.config.concurrency - len(running)):
                key = f"{request.task}/{request.id}/{request.sample}"
                prompt = {"prompt_token_ids": self.prompts.tokens(request)}
                try:
                    engine.add_request(key, prompt, self._params(request, sampling))
                except ValueError as error:  # a prompt that is too long, of a second round
                    yield request, Failed(str(error))
                else:
                    running[key] = request
            if not running:
                return
            for output in engine.step():
                if output.finished:
                    request = running.pop(output.request_id)
                    opening = request.prefill or self.prompts.opening(request)
                    yield request, _generation(opening, output)

    def close(self) -> None:
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None

    def _params(self, request: Request, sampling: Sampling) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=sampling.max_tokens,
            seed=request.seed,
            logprobs=0,  # the sampled token's own
            stop=[PREFILL_STOP] if request.prefill else None,
            include_stop_str_in_output=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _engine(self) -> Any:
        if self._llm is None:
            on_cpu = _prepare()
            if on_cpu:
                import torch

                torch.set_num_threads(self.config.threads or len(os.sched_getaffinity(0)))
            from vllm import LLM

            length = self.config.max_model_len or self._longest
            self._llm = LLM(
                model=str(self.folder),
                dtype=self._dtype(),
                max_model_len=length,
                max_num_seqs=self.config.concurrency,
                tensor_parallel_size=self.config.tensor_parallel_size,
                gpu_memory_utilization=self.config.gpu_memory_utilization,
                hf_overrides=(
                    {"rope_parameters": scaled}
                    if (scaled := self.positions.rope_parameters)
                    else {}
                ),
                enable_prefix_caching=True,  # the samples of a problem share its prompt
                seed=0,
                **(_on_cpu(length) if on_cpu else {}),
            )
        return self._llm.llm_engine

    def _dtype(self) -> str:
        if self.config.dtype != "auto" or not _without_gpu():
            return self.config.dtype
        return "bfloat16" if list_bf16_flags() else "float32"


def _without_gpu() -> bool:
    from verl_pipeline.verl_adapter.cpu.vllm_distribution import find_vllm_version, install_finder

    install_finder()
    return "cpu" in (find_vllm_version() or "")


def _prepare() -> bool:
    """Environment of a vLLM in this process; whether it is a CPU's."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = (
        "0"  # no process of its own, which a kill would leave
    )
    if not _without_gpu():
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        return False
    from verl_pipeline.verl_adapter.cpu.environment import set_environment

    os.environ.setdefault(
        "VLLM_LOGGING_LEVEL", "ERROR"
    )  # its warnings are about what a CPU has not
    os.environ.setdefault(
        "VLLM_CPU_KVCACHE_SPACE", "4"
    )  # GiB; nothing else of a run needs memory here
    set_environment()
    return True


def _on_cpu(length: int) -> dict[str, Any]:
    """vLLM 0.27.1 rewinds the generator of a sample whose prompt it reads in parts; a CPU's
    generator cannot.
    """
    return {
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(length, 8192),
    }


def _generation(opening: str, output: Any) -> Generation | Failed:
    [answer] = output.outputs
    if answer.finish_reason not in ("stop", "length"):
        return Failed(f"vLLM ended it with {answer.finish_reason!r}")
    count = len(answer.token_ids)
    mean = (
        answer.cumulative_logprob / count
        if count and answer.cumulative_logprob is not None
        else None
    )
    return Generation(
        opening + answer.text, len(output.prompt_token_ids), count, answer.finish_reason, mean
    )
