"""Reads the answer of an OpenAI-compatible server.

Invariants:
* Thoughts that the server returns apart from the answer come back in ``<think>`` tags, closed
  unless the response was cut off within them: grading sees what the model generated.
* A response that something other than the model or ``max_tokens`` ended is a
  :class:`FailedRequest`, and so is one without text that claims to have some.
"""

from typing import Any

from verl_pipeline.evaluation.engines import (
    PREFILL_STOP,
    FailedRequest,
    Generation,
    SampleRequest,
)
from verl_pipeline.evaluation.token_confidence import measure_token

# Names of the servers for "the model ended the response": OpenAI; TGI; Anthropic; Cohere; others.
_ENDS = frozenset(
    "stop eos eos_token end_of_text end_turn stop_sequence stop_token complete completed end done "
    "finished natural".split()
)
# And for "the response reached the maximum length": OpenAI; Anthropic, Google; Mistral; others.
_CUTS = frozenset(
    "length max_tokens max_output_tokens max_completion_tokens max_new_tokens max_length "
    "model_length token_limit model_context_window_exceeded".split()
)
# DeepSeek, older vLLM, SGLang; OpenRouter, Groq, newer vLLM; Ollama.
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")


def read_answer(
    request: SampleRequest,
    answer: Any,
    max_tokens: int,
    *,
    thinks: bool = True,
    counts_tokens: bool = True,
    top_logprobs: int | None = None,
) -> Generation | FailedRequest:
    """Return the response in ``answer``, the parsed body of a chat completion.

    Args:
        counts_tokens: whether the server counts tokens; if it does not, ``tokens`` is 0.
        thinks: False if thinking is switched off: then a reasoning parser that finds nothing but
            thoughts has taken the answer for them.
        top_logprobs: as ``engine.top_logprobs``.
    """
    try:
        read = _read_choice(request, answer, max_tokens, thinks, top_logprobs)
    # An answer may have any form; each is a failure of the server, not of the model.
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        return FailedRequest(
            f"the server's answer is no chat completion ({type(error).__name__}: {error}): "
            f"{str(answer)[:500]}"
        )
    if counts_tokens and isinstance(read, Generation) and read.response and not read.tokens:
        return FailedRequest("the server did not count the tokens of this response")
    return read


def _read_choice(
    request: SampleRequest,
    answer: Any,
    max_tokens: int,
    thinks: bool,
    top_logprobs: int | None,
) -> Generation | FailedRequest:
    if not answer.get("choices"):
        # OpenRouter reports errors of the provider with status 200.
        return FailedRequest(f"the server's answer has no choices: {str(answer)[:500]}")
    choice, usage = answer["choices"][0], answer.get("usage") or {}
    message = choice["message"]
    thought, text = _split_thoughts(message)
    logprobs = _list_logprobs(choice)
    tokens = int(usage.get("completion_tokens") or len(logprobs))
    finish = _classify_finish(choice.get("finish_reason"), tokens, max_tokens)
    if finish is None:
        return FailedRequest(
            f"the server ended it with {choice.get('finish_reason')!r}, which is neither an end of "
            f"the model nor the maximum length"
        )
    if text is None and not thought and tokens > 1 and finish == "stop":
        return FailedRequest(f"the server returned no text for {tokens} generated tokens")
    if thought and not text and not thinks:
        thought, text = "", thought
    is_opened_by_text = (text or "").lstrip().startswith("<think>")
    opening = ""
    if thought and not is_opened_by_text:
        opening = f"<think>{thought}" + ("" if finish == "length" and not text else "</think>")
    return Generation(
        request.prefill + opening + _cut_at_stop(request, text or ""),
        int(usage.get("prompt_tokens") or 0),
        tokens,
        finish,
        sum(logprobs) / len(logprobs) if logprobs else None,
        None if top_logprobs is None else _list_confidences(choice, top_logprobs),
    )


def _classify_finish(reason: Any, tokens: int, max_tokens: int) -> Any:
    """Return ``stop`` or ``length``; None if something else ended the response."""
    if isinstance(reason, dict):  # SGLang's native form
        reason = reason.get("type")
    # Some clients' enumerations write FinishReason.MAX_TOKENS.
    name = str(reason or "").rpartition(".")[2].strip().lower().replace("-", "_")
    if name in _CUTS:
        return "length"
    if name in _ENDS:
        return "stop"
    if not name or name in ("none", "null", "unknown"):  # the server does not say
        return "length" if tokens >= max_tokens else "stop"
    return None


def _split_thoughts(message: dict[str, Any]) -> tuple[str, str | None]:
    """Return thoughts and answer; the answer is None if the message has none."""
    named = (message.get(field) for field in _THOUGHT_FIELDS)
    thought = next((value for value in named if value and isinstance(value, str)), "")
    content = message.get("content")
    if isinstance(content, list):
        thoughts: list[str] = []
        texts: list[str] = []
        for part in content:
            kind = part.get("type", "text") if isinstance(part, dict) else "text"
            is_thought = kind in ("thinking", "reasoning", "redacted_thinking")
            (thoughts if is_thought else texts).append(_read_part(part))
        thought = thought or "".join(thoughts)
        content = "".join(texts) if texts else None
    if content is not None and not isinstance(content, str):
        raise TypeError(f"content is {type(content).__name__}")
    # A refusal is what the model says instead of an answer.
    return thought, content if content is not None else message.get("refusal")


def _read_part(part: Any) -> str:
    """Return the text of a part of a message, whose form depends on its type and the server."""
    if isinstance(part, str):
        return part
    if isinstance(part, list):
        return "".join(map(_read_part, part))
    for field in ("text", "thinking", "reasoning", "content", "refusal"):
        if part.get(field):
            return _read_part(part[field])
    return ""


def _list_logprobs(choice: dict[str, Any]) -> list[float]:
    """Return the log-prob of each token, in OpenAI's chat form; empty if the server gives none."""
    tokens = (choice.get("logprobs") or {}).get("content") or []
    return [float(token["logprob"]) for token in tokens]


def _list_confidences(choice: dict[str, Any], top_logprobs: int) -> list[float] | None:
    """Return the confidence of each token; None if the server gives too few log-probs."""
    tokens = (choice.get("logprobs") or {}).get("content") or []
    confidences = []
    for token in tokens:
        tops = sorted(float(one["logprob"]) for one in token.get("top_logprobs") or ())
        ranked = list(enumerate(reversed(tops), 1))
        if len(ranked) < top_logprobs:
            return None
        confidences.append(measure_token(float(token["logprob"]), ranked, top_logprobs))
    return confidences or None


def _cut_at_stop(request: SampleRequest, text: str) -> str:
    """End a prefilled response with its code block, if the server did not."""
    if not request.prefill or PREFILL_STOP not in text:
        return text
    return text[: text.index(PREFILL_STOP) + len(PREFILL_STOP)]
