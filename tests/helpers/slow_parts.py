"""Parts of a real run that each take :data:`DELAY_S` longer: its report must name each of them.

* Reward: ``reward.custom_reward_function.path=pkg://...``, ``name=reward_late``. With
  ``reward_one_by_one`` more workers help.
* Weight sync: ``checkpoint_engine.custom_backend_module=...``, ``backend=late_sync``.
* Update: ``actor_rollout_ref.model.external_lib=...``, whose import slows the optimizer's step.
"""

import asyncio
import os
import time
from collections.abc import Iterator

import torch
from verl.checkpoint_engine.base import CheckpointEngineRegistry

from verl_pipeline.testing import tiny_run
from verl_pipeline.verl_adapter.weights.checkpoint_engine import GlooCheckpointEngine

DELAY_S = 8.0
HOLD_S = 2.0
# Set in a process whose optimizer is to be slow.
UPDATE_IS_LATE = "TESTS_UPDATE_IS_LATE"


async def reward_late(*args, **kwargs):
    await asyncio.sleep(DELAY_S)
    return tiny_run.compute_score(*args, **kwargs)


async def reward_one_by_one(*args, **kwargs):
    """Holds its worker, as computing does: a worker grades one trajectory at a time."""
    time.sleep(HOLD_S)
    return tiny_run.compute_score(*args, **kwargs)


@CheckpointEngineRegistry.register("late_sync")
class LateEngine(GlooCheckpointEngine):
    async def send_weights(
        self, weights: Iterator[tuple[str, torch.Tensor]], global_steps: int | None = None
    ):
        await asyncio.sleep(DELAY_S)
        return await super().send_weights(weights, global_steps)


_step = torch.optim.AdamW.step


def step_late(self, *args, **kwargs):
    if os.environ.get(UPDATE_IS_LATE):
        time.sleep(DELAY_S)
    return _step(self, *args, **kwargs)


torch.optim.AdamW.step = step_late  # type: ignore[method-assign]
