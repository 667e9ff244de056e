"""A vLLM server of verl's that tells how long ago each request got its first token.

Invariants:
* Answers carry ``extra_fields[FIRST_TOKEN_AGE]``: seconds from the first token to the answer, on
  this process's monotonic clock. A length of time needs no clock that two nodes share.
* An answer without a token, as of a request that was aborted in the queue, does not have it.
* vLLM is not imported: the server's class is.
"""

import argparse
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import ray
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

FIRST_TOKEN_AGE = "first_token_age_s"


class FirstTokenServer:
    """Goes before a class of verl's vLLM servers."""

    engine: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # By request of verl's that has no answer yet, when its first token came.
        self._first_tokens: dict[str, float | None] = {}

    async def run_server(self, args: argparse.Namespace) -> None:
        """verl's; the engine's requests then go through :meth:`_generate`."""
        await super().run_server(args)  # type: ignore[misc]
        self._engine_generate = self.engine.generate
        self.engine.generate = self._generate

    async def generate(
        self,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        request_id: str,
        **media: Any,
    ) -> TokenOutput:
        """verl's, with the age of its first token."""
        self._first_tokens[request_id] = None
        try:
            output = await super().generate(  # type: ignore[misc]
                prompt_ids, sampling_params, request_id, **media
            )
        finally:
            first_token = self._first_tokens.pop(request_id, None)
        if first_token is not None:
            output.extra_fields[FIRST_TOKEN_AGE] = time.monotonic() - first_token
        return output

    async def _generate(
        self, prompt: Any, sampling_params: Any, request_id: str, **arguments: Any
    ) -> AsyncGenerator[Any]:
        """The engine's, for requests of verl's and for those of its HTTP server."""
        outputs = self._engine_generate(prompt, sampling_params, request_id, **arguments)
        is_awaited = request_id in self._first_tokens
        async with aclosing(outputs):
            async for output in outputs:
                if is_awaited and any(sampled.token_ids for sampled in output.outputs):
                    self._first_tokens[request_id] = time.monotonic()
                    is_awaited = False
                yield output


def time_first_tokens(replica_class: type[RolloutReplica]) -> type[RolloutReplica]:
    """``replica_class``, one of vLLM's, with servers that tell the age of first tokens."""

    class TimedReplica(replica_class):  # type: ignore[valid-type,misc]
        """A replica of such servers, whatever their class."""

        server_class: Any

        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            # The class as it was before Ray changed it: Ray changes no subclass of a changed one.
            plain = self.server_class.__ray_actor_class__
            # Under the same name, which is its process's title.
            timed = type(plain.__name__, (FirstTokenServer, plain), {})
            self.server_class = ray.remote(timed)

    return TimedReplica
