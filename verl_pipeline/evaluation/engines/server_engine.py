"""An engine for any OpenAI-compatible server.

Invariants:
* One probe before the requests of a task shows what the server takes
  (:mod:`verl_pipeline.evaluation.engines.server_dialect`); if it fails, no request is sent.
* A request that fails is a :class:`FailedRequest` with the server's message.
* When the evaluation stops, requests in flight are cancelled, not awaited.
"""

import asyncio
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from verl_pipeline.evaluation.caveats import Caveat
from verl_pipeline.evaluation.engines import (
    PREFILL_STOP,
    EngineError,
    FailedRequest,
    Generation,
    RequestCheck,
    SampleRequest,
)
from verl_pipeline.evaluation.engines.server_answers import read_answer
from verl_pipeline.evaluation.engines.server_client import ServerClient, ServerFailure
from verl_pipeline.evaluation.engines.server_dialect import LOSSES, ServerDialect, probe_server
from verl_pipeline.evaluation.eval_settings import EngineConfig
from verl_pipeline.evaluation.task import SamplingParameters, make_conversation
from verl_pipeline.grading.program_extraction import extract_answer_text

# Not part of OpenAI's interface; without them vLLM uses the defaults of the model's folder.
_VLLM_DEFAULTS = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
PROBE_QUESTION = "What is 1 + 1? Answer with the number only."
# Servers check a request before they generate: one that still runs after this was accepted.
_PROBE_PATIENCE_S = 60.0


class ServerEngine:
    """Generates with a model that a server serves.

    Args:
        name: the model's name on the server.
        config: settings with the server's ``url``.

    Raises:
        EngineError: the server does not respond, or does not serve the model.
    """

    def __init__(self, name: str, config: EngineConfig):
        self.name, self.config = name, config
        self._loop = asyncio.new_event_loop()
        self._client = ServerClient(config)
        # By sampling parameters, and whether requests have a prefill.
        self._dialects: dict[tuple[SamplingParameters, bool], ServerDialect] = {}
        try:
            served = self._loop.run_until_complete(self._client.list_models())
        except ServerFailure as failure:
            raise EngineError(
                f"engine.url={config.url}: {failure}; check that the server is up and that "
                f"${config.api_key_variable} holds its key"
            ) from failure
        if served and name not in served:
            raise EngineError(
                f"model={name}: {config.url} serves {', '.join(sorted(served))}; name a served "
                "model"
            )
        # vLLM reports its position limit and the origin of the weights; other servers do not.
        description = served.get(name, {})
        limit = description.get("max_model_len")
        self.position_limit: int | None = limit if isinstance(limit, int) else None
        self.weights_root: str | None = description.get("root")

    def describe_model(self) -> dict[str, Any]:
        return {"name": self.name, "weights": None, "root": self.weights_root}

    def describe_settings(self) -> dict[str, Any]:
        recorded = self.config.top_logprobs
        return {
            **({} if recorded is None else {"top_logprobs": recorded}),
            "kind": "server",
            "position_limit": self.position_limit,
            "chat_template_kwargs": self.config.chat_template_kwargs,
        }

    def check_requests(
        self, requests: Iterable[SampleRequest], sampling: SamplingParameters, extra_tokens: int = 0
    ) -> RequestCheck:
        if self.position_limit is not None and sampling.max_tokens >= self.position_limit:
            raise EngineError(
                f"sampling.max_tokens={sampling.max_tokens}, but {self.config.url} holds only "
                f"{self.position_limit} tokens including the prompt: set it lower"
            )
        request = next(iter(requests))
        # A system prompt stays: some models refuse one.
        system = tuple(m for m in request.messages if m["role"] == "system")
        messages = (*system, *make_conversation(PROBE_QUESTION))
        probe = dataclasses.replace(request, messages=messages)
        return self._loop.run_until_complete(self._probe(probe, sampling))

    async def _probe(self, probe: SampleRequest, sampling: SamplingParameters) -> RequestCheck:
        """Learn the server's dialect, and what its answers lack.

        Raises:
            EngineError: the server cannot be used with these settings.
        """

        async def send(body: Mapping[str, Any]) -> Any:
            try:
                return await asyncio.wait_for(self._client.send(body), _PROBE_PATIENCE_S)
            except TimeoutError:
                return None

        body = self._make_body(probe, sampling)
        try:
            dialect, answer = await probe_server(send, body)
        except ServerFailure as failure:
            raise EngineError(
                f"engine.url={self.config.url}: a first request fails, so no other is sent: "
                f"{failure}; correct what the server names (its key is in "
                f"${self.config.api_key_variable}), and rerun the command"
            ) from failure
        dialect.check_left_out(body, self.config.may_drop)
        self._dialects[sampling, bool(probe.prefill)] = dialect
        caveats = dialect.list_caveats(body)
        if answer is not None:
            caveats += self._check_answer(probe, answer, sampling, dialect)
        return RequestCheck(tuple(dialect.left_out), tuple(caveats))

    def _check_answer(
        self,
        probe: SampleRequest,
        answer: Any,
        sampling: SamplingParameters,
        dialect: ServerDialect,
    ) -> list[Caveat]:
        """Return what the answer to the probe lacks.

        Raises:
            EngineError: it cannot be read.
        """
        dialect.counts_tokens = False
        generation = self._read(probe, answer, sampling, dialect)
        if isinstance(generation, FailedRequest):
            raise EngineError(
                f"engine.url={self.config.url}: the answer to a first request cannot be used, so "
                f"no other is sent: {generation.reason}; correct the server's settings, or use "
                "another engine"
            )
        dialect.counts_tokens = generation.tokens > 0
        missing = []
        if generation.mean_logprob is None and "logprobs" not in dialect.left_out:
            missing.append(f"the server returns no logprobs: {LOSSES['logprobs']}")
        if not dialect.counts_tokens:
            missing.append(
                "the server does not count tokens: lengths, costs and token budgets are unknown"
            )
        response = generation.response
        if "<think>" in response and not extract_answer_text(response).strip():
            missing.append(
                f"asked {PROBE_QUESTION!r}, the server returns thoughts without an answer, and such"
                " responses count as wrong: if the model does not think, switch the server's "
                "reasoning parser off"
            )
        return [Caveat("server_limits", text) for text in missing]

    def generate(
        self, requests: Iterable[SampleRequest], sampling: SamplingParameters
    ) -> Iterator[tuple[SampleRequest, Generation | FailedRequest]]:
        waiting = iter(requests)
        running: dict[asyncio.Task[Generation | FailedRequest], SampleRequest] = {}
        try:
            while True:
                for request in islice(waiting, self.config.concurrency - len(running)):
                    running[self._loop.create_task(self._send_request(request, sampling))] = request
                if not running:
                    return
                next_results = asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                done, _pending = self._loop.run_until_complete(next_results)
                for task in done:
                    yield running.pop(task), task.result()
        finally:
            for task in running:
                task.cancel()
            if running:
                self._loop.run_until_complete(asyncio.wait(running))

    async def _send_request(
        self, request: SampleRequest, sampling: SamplingParameters
    ) -> Generation | FailedRequest:
        dialect = self._dialects.get((sampling, bool(request.prefill)), ServerDialect())
        try:
            answer = await self._client.send(dialect.adapt(self._make_body(request, sampling)))
        except ServerFailure as failure:
            return FailedRequest(str(failure))
        return self._read(request, answer, sampling, dialect)

    def _make_body(self, request: SampleRequest, sampling: SamplingParameters) -> dict[str, Any]:
        """Return the body of a chat completion, as OpenAI's interface and vLLM's additions say."""
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [dict(message) for message in request.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        }
        if self.position_limit is not None:  # only vLLM reports it
            body |= _VLLM_DEFAULTS
        if sampling.top_k > 0:
            body["top_k"] = sampling.top_k
        if self.config.chat_template_kwargs:
            body["chat_template_kwargs"] = self.config.chat_template_kwargs
        if request.prefill:  # vLLM and SGLang continue a message with these parameters
            body["messages"].append({"role": "assistant", "content": request.prefill})
            body |= {
                "continue_final_message": True,
                "add_generation_prompt": False,
                "include_stop_str_in_output": True,
                "stop": [PREFILL_STOP],
            }
        body |= {"seed": request.seed, "logprobs": True}
        return body | ({"top_logprobs": tops} if (tops := self.config.top_logprobs) else {})

    def _read(
        self,
        request: SampleRequest,
        answer: Any,
        sampling: SamplingParameters,
        dialect: ServerDialect,
    ) -> Generation | FailedRequest:
        switches = ("enable_thinking", "thinking")
        thinks = not any(self.config.chat_template_kwargs.get(key) is False for key in switches)
        return read_answer(
            request,
            answer,
            sampling.max_tokens,
            thinks=thinks,
            counts_tokens=dialect.counts_tokens,
            top_logprobs=self.config.top_logprobs,
        )

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()
