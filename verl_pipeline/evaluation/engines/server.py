"""Any OpenAI-compatible server, through the ``openai`` client.

Invariants:
* A request has a deadline and a limited number of tries; then it is :class:`Failed`, with the server's own words.
* The answer of a server that separates thoughts (``reasoning_content``) is put together again: ``<think>`` and all.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

from verl_pipeline.evaluation.config import EngineConfig
from verl_pipeline.evaluation.engines import EngineError, Failed, Generation, Request
from verl_pipeline.evaluation.engines.vllm import PREFILL_STOP
from verl_pipeline.evaluation.task import Sampling


class ServerEngine:
    """Args:
        name: the model's, as the server knows it.
        config: with the server's ``url``.

    Raises:
        EngineError: the server does not answer, or has no such model.
    """

    def __init__(self, name: str, config: EngineConfig):
        import openai

        self.name, self.config = name, config
        self._client = openai.OpenAI(
            base_url=config.url,
            api_key=os.environ.get(config.api_key_variable, "none"),
            timeout=config.timeout_s,
            max_retries=config.tries - 1,
        )
        try:
            served = {model.id: model for model in self._client.models.list(timeout=30)}
        except openai.OpenAIError as error:
            raise EngineError(
                f"engine.url={config.url}: {error}; is the server up, and the key in ${config.api_key_variable}?"
            ) from error
        if name not in served:
            raise EngineError(f"model={name}: {config.url} serves {', '.join(sorted(served)) or 'nothing'}")
        # vLLM tells its limit; others do not.
        self.limit: int | None = getattr(served[name], "max_model_len", None)

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "weights": None, "server": self.config.url}

    def settings(self) -> dict[str, Any]:
        return {"kind": "server", "url": self.config.url, "position_limit": self.limit}

    def check_lengths(self, requests: Iterable[Request], sampling: Sampling, more: int = 0) -> None:
        if self.limit is not None and sampling.max_tokens + more >= self.limit:
            raise EngineError(
                f"sampling.max_tokens={sampling.max_tokens}, but {self.config.url} holds {self.limit} tokens with the "
                "prompt: set it lower"
            )

    def generate(
        self, requests: Iterable[Request], sampling: Sampling
    ) -> Iterator[tuple[Request, Generation | Failed]]:
        waiting = iter(requests)
        running: dict[Future[Generation | Failed], Request] = {}
        with ThreadPoolExecutor(self.config.concurrency) as threads:
            try:
                while True:
                    for request in islice(waiting, self.config.concurrency - len(running)):
                        running[threads.submit(self._ask, request, sampling)] = request
                    if not running:
                        return
                    done, _others = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield running.pop(future), future.result()
            finally:
                self._client.close()  # what is under way when we stop ends at once

    def _ask(self, request: Request, sampling: Sampling) -> Generation | Failed:
        import openai

        messages = [dict(message) for message in request.messages]
        extra: dict[str, Any] = {"top_k": sampling.top_k} if sampling.top_k > 0 else {}
        if request.prefill:  # vLLM's and SGLang's words for going on with a message
            messages.append({"role": "assistant", "content": request.prefill})
            extra |= {
                "add_generation_prompt": False,
                "continue_final_message": True,
                "include_stop_str_in_output": True,
            }
        try:
            answer = self._client.chat.completions.create(
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
        except openai.OpenAIError as error:
            return Failed(str(error))
        choice = answer.choices[0]
        if choice.finish_reason not in ("stop", "length") or answer.usage is None:
            return Failed(f"the server ended it with {choice.finish_reason!r}, usage {answer.usage}")
        thought = getattr(choice.message, "reasoning_content", None)
        text = (f"<think>{thought}</think>" if thought else "") + (choice.message.content or "")
        logprobs = [token.logprob for token in (choice.logprobs and choice.logprobs.content) or []]
        mean = sum(logprobs) / len(logprobs) if logprobs else None
        usage = answer.usage
        return Generation(
            request.prefill + text, usage.prompt_tokens, usage.completion_tokens, choice.finish_reason, mean
        )

    def close(self) -> None:
        self._client.close()
