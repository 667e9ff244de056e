"""Finds out, with one probe before thousands of requests, what a server takes.

If the server refuses the probe, it is sent again without the parameter that the server names. If
the server names none or several, parameters are added one at a time to a request without any.

Invariants:
* All samples of a task are requested with the same parameters, those of the accepted probe.
* A parameter that shapes the samples (temperature, top_p, ...) is left out only if its value is the
  interface's default or the user allows it (``engine.may_drop``).
* Whatever is left out is reported with what the results lose.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from verl_pipeline.evaluation.caveats import Caveat
from verl_pipeline.evaluation.engines import EngineError
from verl_pipeline.evaluation.engines.server_client import ServerFailure
from verl_pipeline.evaluation.eval_settings import DROPPABLE_PARAMETERS

_ALWAYS_SENT = ("model", "messages")
TOKEN_LIMIT, NEW_TOKEN_LIMIT = "max_tokens", "max_completion_tokens"
# Defaults of OpenAI's interface, and neutral values of vLLM's additions to it.
_NEUTRAL_VALUES = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
LOSSES = {
    "logprobs": "there is no confidence: votes weighted by it and best-of-n by mean_logprob are "
    "missing, and refine.confidence has no effect",
    "seed": "the samples do not follow from sampling.seed: another run gives others",
    "stop": "responses are cut here at the end of the code block, and their token counts include "
    "what was cut off",
    "include_stop_str_in_output": "a code block that a stop sequence ended lacks its last line",
    TOKEN_LIMIT: "responses are as long as the server allows",
    "chat_template_kwargs": "the prompts follow the server's own template arguments",
    "continue_final_message": "the response may not continue the prefill",
}
# Servers take the second only together with the first.
_COMPANIONS = {
    "continue_final_message": ("add_generation_prompt",),
    "logprobs": ("top_logprobs",),
}
_SETTINGS = {
    "chat_template_kwargs": "engine.chat_template_kwargs",
    "continue_final_message": "style",
}

Body = dict[str, Any]
Send = Callable[[Mapping[str, Any]], Awaitable[Any]]


@dataclass
class ServerDialect:
    """How requests are put to a server.

    Attributes:
        left_out: parameters that the server refuses, with its message.
        token_limit: the server's name for ``max_tokens``.
        counts_tokens: whether answers have the number of generated tokens.
    """

    left_out: dict[str, str] = field(default_factory=dict)
    token_limit: str = TOKEN_LIMIT
    counts_tokens: bool = True

    def adapt(self, body: Mapping[str, Any]) -> Body:
        """Return ``body`` as the server takes it."""
        hidden = {
            name
            for left_out in self.left_out
            for name in (left_out, *_COMPANIONS.get(left_out, ()))
        }
        adapted = {name: value for name, value in body.items() if name not in hidden}
        if TOKEN_LIMIT in adapted:
            adapted[self.token_limit] = adapted.pop(TOKEN_LIMIT)
        return adapted

    def list_caveats(self, body: Mapping[str, Any]) -> list[Caveat]:
        """Return what the results lose by each parameter of ``body`` that is left out."""
        return [
            Caveat(
                "dropped_parameters" if _shapes_samples(name, body[name]) else "server_limits",
                f"the server refuses {name}, so it is left out: "
                f"{LOSSES.get(name, f'the server samples with its own {name}')} ({message})",
            )
            for name, message in self.left_out.items()
        ]

    def check_left_out(self, body: Mapping[str, Any], may_drop: list[str]) -> None:
        """Refuse to go on without a parameter that shapes the samples.

        Raises:
            EngineError: the message names the setting, the server's reason and the remedies.
        """
        for name, message in self.left_out.items():
            value, neutral = body[name], _NEUTRAL_VALUES.get(name)
            if name in may_drop or not _shapes_samples(name, value):
                continue
            setting = _SETTINGS.get(name, f"sampling.{name}")
            shown = "prefill" if setting == "style" else value
            remedy = "style=chat" if setting == "style" else f"{setting}={neutral}"
            raise EngineError(
                f"{setting}={shown}: the server refuses {name} ({message}): "
                + (f"set {remedy}, or " if neutral is not None or setting == "style" else "")
                + f"let it be left out, which changes the samples, with engine.may_drop=[{name}]"
            )


def _shapes_samples(name: str, value: Any) -> bool:
    """Whether the samples differ if a parameter with this value is left out."""
    return name in DROPPABLE_PARAMETERS and value != _NEUTRAL_VALUES.get(name)


async def probe_server(send: Send, body: Body) -> tuple[ServerDialect, Any]:
    """Return how to put requests such as ``body``, and the server's answer to it.

    Raises:
        ServerFailure: the server refuses even the messages alone, or fails.
        EngineError: the server refuses the value of ``max_tokens``.
    """
    dialect = ServerDialect()
    last: ServerFailure | None = None
    while True:
        sent = dialect.adapt(body)
        try:
            return dialect, await send(sent)
        except ServerFailure as failure:
            if not failure.is_refusal:
                raise
            named = failure.list_named(name for name in sent if name not in _ALWAYS_SENT)
            # A parameter without which the server says the same was not the cause.
            if len(named) != 1 or (last and str(last) == str(failure)):
                return await _add_parameters(send, body, last or failure)
            last = failure
            if named[0] in (TOKEN_LIMIT, NEW_TOKEN_LIMIT):
                await _find_token_limit(send, body, dialect, failure)
            else:
                name = next(
                    (key for key, names in _COMPANIONS.items() if named[0] in names), named[0]
                )
                dialect.left_out[name] = str(failure)


async def _add_parameters(
    send: Send, body: Body, first: ServerFailure
) -> tuple[ServerDialect, Any]:
    """Find what is refused without the server's words: add one parameter at a time."""
    dialect = ServerDialect()
    await _find_token_limit(send, body, dialect, first)
    companions = {name for names in _COMPANIONS.values() for name in names}
    names = [name for name in body if name not in {*_ALWAYS_SENT, TOKEN_LIMIT, *companions}]
    # Sampling parameters come first in `body`: if two exclude each other, the first one stays.
    dialect.left_out |= {name: str(first) for name in names}
    answer = await send(dialect.adapt(body))
    for name in names:
        del dialect.left_out[name]
        try:
            answer = await send(dialect.adapt(body))
        except ServerFailure as failure:
            if not failure.is_refusal:
                raise
            dialect.left_out[name] = str(failure)
    return dialect, answer


async def _find_token_limit(
    send: Send, body: Body, dialect: ServerDialect, refusal: ServerFailure
) -> None:
    """Set the name under which the server takes ``max_tokens``, or leave the limit out.

    Raises:
        ServerFailure: the server refuses the messages alone.
        EngineError: the server knows the parameter, but refuses its value.
    """
    messages = {name: body[name] for name in _ALWAYS_SENT}
    if await _is_accepted(send, {**messages, TOKEN_LIMIT: body[TOKEN_LIMIT]}):
        return
    # A small value tells a parameter that is refused from a value that is.
    small = min(body[TOKEN_LIMIT], 16)
    if small < body[TOKEN_LIMIT] and await _is_accepted(send, {**messages, TOKEN_LIMIT: small}):
        raise EngineError(
            f"sampling.max_tokens={body[TOKEN_LIMIT]}: the server refuses it ({refusal}): set it "
            "lower"
        )
    if await _is_accepted(send, {**messages, NEW_TOKEN_LIMIT: body[TOKEN_LIMIT]}):
        dialect.token_limit = NEW_TOKEN_LIMIT
        return
    if not await _is_accepted(send, messages):
        raise refusal
    dialect.left_out[TOKEN_LIMIT] = str(refusal)


async def _is_accepted(send: Send, body: Body) -> bool:
    try:
        await send(body)
    except ServerFailure as failure:
        if not failure.is_refusal:
            raise
        return False
    return True
