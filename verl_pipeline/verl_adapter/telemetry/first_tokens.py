"""When trajectories get their first token: servers that tell it, a client that hears it.

One way for all trainer modes: verl finds the replica's class by the engine's name, and every client
of an agent loop ends in verl's plain one.

Invariants:
* Only vLLM's servers tell it. With another engine, or with replicas of one's own beside verl's
  registry (verl's disaggregated ones), nobody knows it.
* Agent loops see answers without :data:`~.first_token_server.FIRST_TOKEN_AGE`.
"""

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import RolloutReplicaRegistry, TokenOutput

from verl_pipeline.trainer.pipeline_config import load_pipeline_config
from verl_pipeline.verl_adapter.telemetry.first_token_server import (
    FIRST_TOKEN_AGE,
    time_first_tokens,
)

ENGINE = "vllm"


def record_first_tokens(config: DictConfig) -> None:
    """Let verl find replicas whose servers tell first tokens, in this process only."""
    name = config.actor_rollout_ref.rollout.name
    if name == ENGINE and load_pipeline_config(config).telemetry.enabled:
        load = RolloutReplicaRegistry._registry[name]
        RolloutReplicaRegistry.register(name, lambda: time_first_tokens(load()))


class _FirstTokenClient(LLMServerClient):
    """verl's plain client, which says how long ago an answer's first token came."""

    # Gets the seconds.
    note_age: Callable[[float], None]

    async def generate(self, request_id: str, **kwargs: Any) -> TokenOutput:  # type: ignore[override]
        """verl's."""
        output = await super().generate(request_id, **kwargs)
        age = output.extra_fields.pop(FIRST_TOKEN_AGE, None)
        if age is not None:
            self.note_age(age)
        return output


def note_first_tokens(client: Any, note_age: Callable[[float], None]) -> None:
    """Call ``note_age`` with the age in seconds of the first token of each answer that ``client``
    gets, in the task that asked; an interrupted generation has several.

    A client that is none of verl's is left as it is.
    """
    own = type(client)
    if not isinstance(client, LLMServerClient):
        return
    # Last before verl's plain client, since the others make new answers of what it returns.
    bases = (_FirstTokenClient,) if own is LLMServerClient else (own, _FirstTokenClient)
    client.__class__ = type(own.__name__, bases, {})
    client.note_age = note_age
