"""Sends requests to an OpenAI-compatible server, through the ``openai`` client.

Invariants:
* Each request has a timeout and a limited number of tries. Waiting for a rate limit is no try: it
  lasts as long as the server asks, at most ``engine.timeout_s`` in all.
* A rate limit pauses all requests, not only the one that met it.
"""

import asyncio
import datetime
import email.utils
import json
import os
import random
import re
from collections.abc import Iterable, Mapping
from typing import Any

from verl_pipeline.evaluation.eval_settings import EngineConfig

# Pauses before a repetition without Retry-After, in seconds: those of the openai client.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0
# What a repetition may mend: timeouts, conflicts, and the server's own errors (5xx).
_REPEATED = (408, 409, 425)
# Statuses with which a server refuses what a request says; 500 as some do it by an exception.
_REFUSALS = (400, 403, 404, 405, 406, 415, 422, 500, 501)
_MAX_MESSAGE = 1000


class ServerFailure(Exception):
    """A request without an answer; the message is the server's.

    Attributes:
        status: HTTP status; None: no response.
        parameter: the parameter that the server names as the cause, if it does so in a field.
    """

    def __init__(self, message: str, status: int | None = None, parameter: str | None = None):
        super().__init__(message)
        self.status, self.parameter = status, parameter

    @property
    def is_refusal(self) -> bool:
        """Whether another request might be accepted."""
        return self.status in _REFUSALS

    def list_named(self, names: Iterable[str]) -> list[str]:
        """Return those of ``names`` that the server names as the cause."""
        if self.parameter in (names := list(names)):
            return [str(self.parameter)]
        return [name for name in names if re.search(rf"(?<!\w){name}(?!\w)", str(self))]


class ServerClient:
    """A connection to the server that ``config`` names."""

    def __init__(self, config: EngineConfig):
        import openai

        self._config = config
        self._client = openai.AsyncOpenAI(
            base_url=config.url,
            api_key=os.environ.get(config.api_key_variable) or "none",
            timeout=config.timeout_s,
            max_retries=0,
        )
        # Time of the event loop before which no request is sent.
        self._resume_at = 0.0

    async def list_models(self) -> dict[str, dict[str, Any]]:
        """Return the descriptions of the served models by name; none if the server lists none.

        Raises:
            ServerFailure: the server cannot be reached, or refuses the key.
        """
        import httpx
        import openai

        client = self._client.with_options(max_retries=self._config.tries - 1, timeout=30)
        try:
            response = await client.get("/models", cast_to=httpx.Response)
            return {str(model["id"]): model for model in response.json()["data"]}
        except openai.APIStatusError as error:
            failure = _make_failure(error)
            if failure.is_refusal or failure.status == 429:  # the list is optional
                return {}
            raise failure from error
        except openai.APIConnectionError as error:
            raise ServerFailure(_describe_connection(error)) from error
        except (ValueError, KeyError, TypeError):
            return {}

    async def send(self, body: Mapping[str, Any]) -> Any:
        """Return the parsed answer to a chat completion.

        Raises:
            ServerFailure: all tries failed, or the server's limit lasts too long.
        """
        import httpx
        import openai

        loop = asyncio.get_running_loop()
        tries = limits = 0
        limited_since: float | None = None
        while True:
            while (pause := self._resume_at - loop.time()) > 0:
                # Not all at once: the limit would be met again.
                await asyncio.sleep(pause * random.uniform(1.0, 1.25))
            try:
                response = await self._client.post(
                    "/chat/completions", cast_to=httpx.Response, body=dict(body)
                )
                return response.json()
            except openai.APIStatusError as error:
                failure = _make_failure(error)
                asked = read_retry_after(error.response.headers)
                is_limited = failure.status == 429 or (failure.status == 503 and asked is not None)
                if is_limited and not _is_quota_used_up(error):
                    now = loop.time()
                    limited_since = limited_since or now
                    pause = max(asked or 0.0, 0.0) or _choose_pause(limits, longest_s=60.0)
                    if now + pause - limited_since > self._config.timeout_s:
                        raise ServerFailure(
                            f"{failure} (its limit asks to wait {pause:.0f} s more, beyond "
                            f"engine.timeout_s={self._config.timeout_s:g})",
                            failure.status,
                        ) from error
                    limits += 1
                    self._resume_at = max(self._resume_at, now + pause)
                    continue
                status = failure.status or 0
                if status not in _REPEATED and (status < 500 or status == 501):
                    raise failure from error
            except openai.APIConnectionError as error:
                failure = ServerFailure(_describe_connection(error))
            except ValueError as error:
                failure = ServerFailure(f"not JSON: {str(error)[:_MAX_MESSAGE]}")
            tries += 1
            if tries >= self._config.tries:
                raise failure
            await asyncio.sleep(_choose_pause(tries - 1, _LONGEST_PAUSE_S))

    async def close(self) -> None:
        await self._client.close()


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the server asks to wait (RFC 9110, 10.2.3: seconds or a date).

    None if it does not ask, or not legibly.
    """
    try:
        if text := headers.get("retry-after-ms"):  # Azure's
            return float(text) / 1000
        text = headers.get("retry-after") or ""
        if re.fullmatch(r"\s*\d+(\.\d+)?\s*", text):
            return float(text)
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return (moment - datetime.datetime.now(datetime.UTC)).total_seconds()


def _choose_pause(repetitions: int, longest_s: float) -> float:
    return min(longest_s, _FIRST_PAUSE_S * 2**repetitions) * random.uniform(0.75, 1.0)


def _make_failure(error: Any) -> ServerFailure:
    """Return the failure that an ``openai.APIStatusError`` reports."""
    body = error.body  # the field `error` of the body, if it has one
    parameter = body.get("param") if isinstance(body, dict) else None
    text = ""
    if isinstance(body, dict):
        text = body.get("message") or ""
        text = text if text and isinstance(text, str) else json.dumps(body)
    text = " ".join((text or error.response.text).split())[:_MAX_MESSAGE]
    return ServerFailure(
        f"HTTP {error.status_code}: {text or 'no message'}",
        error.status_code,
        parameter if isinstance(parameter, str) else None,
    )


def _is_quota_used_up(error: Any) -> bool:
    """Whether no wait helps: OpenAI reports an exhausted account as a rate limit."""
    return isinstance(error.body, dict) and error.body.get("code") == "insufficient_quota"


def _describe_connection(error: Exception) -> str:
    cause = f": {error.__cause__}" if error.__cause__ and str(error.__cause__) else ""
    return f"{type(error).__name__}: {error}{cause}"
