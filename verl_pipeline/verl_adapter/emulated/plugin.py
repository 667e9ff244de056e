"""What every process of an emulated run loads (``VERL_USE_EXTERNAL_MODULES``).

Invariants:
* Without :data:`~verl_pipeline.emulated.cluster.VARIABLE` in the environment it does nothing.
* verl's own waits (a poll of 2 s, a pause of 1 s before an interrupted request goes on) pass on the
  emulated clock, as all else does; a poll is never shorter than :data:`SHORTEST_POLL_S`.
"""

import functools
import os
from pathlib import Path
from typing import Any

from wrapt import register_post_import_hook

from verl_pipeline.emulated.cluster import VARIABLE, EmulatedCluster, read_cluster
from verl_pipeline.emulated.identity import Alphabet
from verl_pipeline.verl_adapter.emulated import patches

# Set to 1 in the environment of a run in which verl computes no log-probs (bypass mode).
BYPASS_VARIABLE = "VERL_PIPELINE_EMULATED_BYPASS"
ROLLOUT_NAME = "emulated"
ENGINE_DEVICE = "emulated"
ADAPTER = "verl_pipeline.verl_adapter.emulated.weight_receiver.EmulatedWeightReceiver"
SHORTEST_POLL_S = 0.02


@functools.cache
def load_run() -> EmulatedCluster:
    """The run that this process belongs to."""
    return read_cluster(Path(os.environ[VARIABLE]))


def read_alphabet(tokenizer: Any) -> Alphabet:
    """What the tokens of the run's stand-in model say.

    Args:
        tokenizer: of Hugging Face, with a token for each character.
    """
    tokens = [[token] for token in range(len(tokenizer))]
    return Alphabet(tokenizer.batch_decode(tokens, skip_special_tokens=True))


def register() -> None:
    """Register everything when verl imports the module it belongs to."""
    for hook, module in (
        (_register_replica, "verl.workers.rollout.replica"),
        (_register_receiver, "verl.workers.rollout.base"),
        (_register_engine, "verl.workers.engine.fsdp.transformer_impl"),
        (_scale_poll, "verl.trainer.ppo.v1.replay_buffer"),
        (_scale_pauses, "verl.workers.rollout.llm_server"),
    ):
        register_post_import_hook(hook, module)


def _register_replica(module: Any) -> None:
    def load() -> type:
        from verl_pipeline.verl_adapter.emulated.rollout_replica import EmulatedRolloutReplica

        return EmulatedRolloutReplica

    module.RolloutReplicaRegistry.register(ROLLOUT_NAME, load)


def _register_receiver(module: Any) -> None:
    patches.add_receiver(module, ROLLOUT_NAME, ADAPTER)


def _register_engine(_module: Any) -> None:
    import verl_pipeline.verl_adapter.emulated.training_engine  # noqa: F401


def _scale_poll(module: Any) -> None:
    seconds = patches.POLL_S / load_run().time_scale
    patches.set_poll_interval(module, max(seconds, SHORTEST_POLL_S))


def _scale_pauses(module: Any) -> None:
    patches.scale_pauses(module, load_run().time_scale)


if VARIABLE in os.environ:
    register()
