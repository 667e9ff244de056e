"""An engine for any OpenAI-compatible server, through the ``openai`` client.

Invariants:
* Each request has a timeout and a limited number of tries; then it is a :class:`FailedRequest` with
  the server's message.
* If the server returns thoughts separately, the response contains them in ``<think>`` tags.
* When the evaluation stops, requests in flight are cancelled, not awaited.
"""

import asyncio
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from verl_pipeline.evaluation.engines import (
    PREFILL_STOP,
    EngineError,
    FailedRequest,
    Generation,
    SampleRequest,
)
from verl_pipeline.evaluation.eval_settings import EngineConfig
from verl_pipeline.evaluation.task import SamplingParameters

# Not part of OpenAI's interface; without them vLLM uses the defaults of the model's folder.
_VLLM_DEFAULTS = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


class ServerEngine:
    """Generates with a model that a server serves.

    Args:
        name: the model's name on the server.
        config: settings with the server's ``url``.

    Raises:
        EngineError: the server does not respond, or does not serve the model.
    """

    def __init__(self, name: str, config: EngineConfig):
        import openai

        self.name, self.config = name, config
        self._loop = asyncio.new_event_loop()
        self._client = openai.AsyncOpenAI(
            base_url=config.url,
            api_key=os.environ.get(config.api_key_variable, "none"),
            timeout=config.timeout_s,
            max_retries=config.tries - 1,
        )
        served = self._loop.run_until_complete(self._list_models())
        if name not in served:
            raise EngineError(
                f"model={name}: {config.url} serves {', '.join(sorted(served)) or 'nothing'}; name "
                "a served model"
            )
        # vLLM reports its position limit and the origin of the weights; other servers do not.
        self.position_limit: int | None = getattr(served[name], "max_model_len", None)
        self.weights_root: str | None = getattr(served[name], "root", None)

    async def _list_models(self) -> dict[str, Any]:
        import openai

        try:
            return {model.id: model async for model in self._client.models.list(timeout=30)}
        # A server without OpenAI's interface causes the last two.
        except (openai.OpenAIError, ValueError, AttributeError) as error:
            raise EngineError(
                f"engine.url={self.config.url}: {error}; check that the server is up and that "
                f"${self.config.api_key_variable} holds its key"
            ) from error

    def describe_model(self) -> dict[str, Any]:
        return {"name": self.name, "weights": None, "root": self.weights_root}

    def describe_settings(self) -> dict[str, Any]:
        return {
            "kind": "server",
            "position_limit": self.position_limit,
            "chat_template_kwargs": self.config.chat_template_kwargs,
        }

    def check_requests(
        self, requests: Iterable[SampleRequest], sampling: SamplingParameters, extra_tokens: int = 0
    ) -> None:
        if self.position_limit is not None and sampling.max_tokens >= self.position_limit:
            raise EngineError(
                f"sampling.max_tokens={sampling.max_tokens}, but {self.config.url} holds only "
                f"{self.position_limit} tokens including the prompt: set it lower"
            )

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
        import openai

        messages = [dict(message) for message in request.messages]
        extra: dict[str, Any] = {"top_k": sampling.top_k} if sampling.top_k > 0 else {}
        if self.position_limit is not None:  # only vLLM reports it
            extra = {**_VLLM_DEFAULTS, **extra}
        if self.config.chat_template_kwargs:
            extra["chat_template_kwargs"] = self.config.chat_template_kwargs
        if request.prefill:  # vLLM and SGLang continue a message with these parameters
            messages.append({"role": "assistant", "content": request.prefill})
            extra |= {
                "add_generation_prompt": False,
                "continue_final_message": True,
                "include_stop_str_in_output": True,
            }
        try:
            answer = await self._client.chat.completions.create(
                model=self.name,
                messages=messages,  # type: ignore[arg-type]
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                seed=request.seed,
                logprobs=True,
                stop=[PREFILL_STOP] if request.prefill else None,
                extra_body=extra,
            )
            return _make_generation(request, answer)
        except (openai.OpenAIError, AttributeError, IndexError, TypeError, ValueError) as error:
            # A malformed response is a failure of the server, not a wrong answer of the model.
            return FailedRequest(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


def _make_generation(request: SampleRequest, answer: Any) -> Generation | FailedRequest:
    choice, usage = answer.choices[0], answer.usage
    if choice.finish_reason not in ("stop", "length") or usage is None:
        return FailedRequest(f"the server ended it with {choice.finish_reason!r}, usage {usage}")
    message = choice.message
    # The field's name depends on the version of the server.
    thought = getattr(message, "reasoning", None) or getattr(message, "reasoning_content", None)
    closing = "" if choice.finish_reason == "length" and not message.content else "</think>"
    text = (f"<think>{thought}{closing}" if thought else "") + (message.content or "")
    logprobs = [token.logprob for token in (choice.logprobs and choice.logprobs.content) or []]
    mean = sum(logprobs) / len(logprobs) if logprobs else None
    return Generation(
        request.prefill + text,
        usage.prompt_tokens,
        usage.completion_tokens,
        choice.finish_reason,
        mean,
    )
