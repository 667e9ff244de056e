"""Any OpenAI-compatible server, through the ``openai`` client.

Invariants:
* A request has a deadline and a limited number of tries; then it is :class:`Failed`, with the
  server's own words.
* The answer of a server that separates thoughts is put together again, with its ``<think>``.
* When the evaluation stops, what is under way is cancelled, not waited for.
"""

import asyncio
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from verl_pipeline.evaluation.config import EngineConfig
from verl_pipeline.evaluation.engines import PREFILL_STOP, EngineError, Failed, Generation, Request
from verl_pipeline.evaluation.task import Sampling

# Beyond what OpenAI's interface has; without them vLLM takes the model's own defaults.
_VLLM_DEFAULTS = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


class ServerEngine:
    """A model behind an OpenAI-compatible interface.

    Args:
        name: the model's, as the server knows it.
        config: with the server's ``url``.

    Raises:
        EngineError: the server does not answer, or has no such model.
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
        served = self._loop.run_until_complete(self._models())
        if name not in served:
            raise EngineError(
                f"model={name}: {config.url} serves {', '.join(sorted(served)) or 'nothing'}"
            )
        # vLLM tells its limit and where the weights come from; others do not.
        self.limit: int | None = getattr(served[name], "max_model_len", None)
        self.root: str | None = getattr(served[name], "root", None)

    async def _models(self) -> dict[str, Any]:
        import openai

        try:
            return {model.id: model async for model in self._client.models.list(timeout=30)}
        except (
            openai.OpenAIError,
            ValueError,
            AttributeError,
        ) as error:  # the last two: it is no such server
            raise EngineError(
                f"engine.url={self.config.url}: {error}; is the server up, and the key in "
                f"${self.config.api_key_variable}?"
            ) from error

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "weights": None, "root": self.root}

    def settings(self) -> dict[str, Any]:
        kwargs = self.config.chat_template_kwargs
        return {"kind": "server", "position_limit": self.limit, "chat_template_kwargs": kwargs}

    def check_lengths(self, requests: Iterable[Request], sampling: Sampling, more: int = 0) -> None:
        if self.limit is not None and sampling.max_tokens >= self.limit:
            raise EngineError(
                f"sampling.max_tokens={sampling.max_tokens}, but {self.config.url} holds "
                f"{self.limit} tokens with the prompt: set it lower"
            )

    def generate(
        self, requests: Iterable[Request], sampling: Sampling
    ) -> Iterator[tuple[Request, Generation | Failed]]:
        waiting = iter(requests)
        running: dict[asyncio.Task[Generation | Failed], Request] = {}
        try:
            while True:
                for request in islice(waiting, self.config.concurrency - len(running)):
                    running[self._loop.create_task(self._ask(request, sampling))] = request
                if not running:
                    return
                some = asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                done, _others = self._loop.run_until_complete(some)
                for task in done:
                    yield running.pop(task), task.result()
        finally:
            for task in running:
                task.cancel()
            if running:
                self._loop.run_until_complete(asyncio.wait(running))

    async def _ask(self, request: Request, sampling: Sampling) -> Generation | Failed:
        import openai

        messages = [dict(message) for message in request.messages]
        extra: dict[str, Any] = {"top_k": sampling.top_k} if sampling.top_k > 0 else {}
        if self.limit is not None:  # it is vLLM
            extra = {**_VLLM_DEFAULTS, **extra}
        if self.config.chat_template_kwargs:
            extra["chat_template_kwargs"] = self.config.chat_template_kwargs
        if request.prefill:  # vLLM's and SGLang's words for going on with a message
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
            return _generation(request, answer)
        except (openai.OpenAIError, AttributeError, IndexError, TypeError, ValueError) as error:
            # Whatever is not of OpenAI's form is the server's failure, not the model's.
            return Failed(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


def _generation(request: Request, answer: Any) -> Generation | Failed:
    choice, usage = answer.choices[0], answer.usage
    if choice.finish_reason not in ("stop", "length") or usage is None:
        return Failed(f"the server ended it with {choice.finish_reason!r}, usage {usage}")
    message = choice.message
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
