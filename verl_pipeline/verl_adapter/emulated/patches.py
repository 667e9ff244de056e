"""Monkey-patches for emulated runs: the places of verl 0.9.1 that offer no seam.

Each patch says what is wrong without it. ``tests/unit/verl_adapter/emulated/test_patches.py`` fails
when verl changes the patched code, so that a patch is still needed and right, or gets removed.
"""

import asyncio
import functools
import types
from typing import Any

# verl's own, of its replay buffer.
POLL_S = 2.0


def set_poll_interval(module: Any, seconds: float) -> None:
    """Let verl's replay buffer look for finished prompts every ``seconds`` real seconds.

    ``ReplayBuffer`` takes the interval, but no trainer of verl's gives it one: it is 2 s, which on
    an emulated clock are minutes.

    Args:
        module: ``verl.trainer.ppo.v1.replay_buffer``.
    """
    module.ReplayBuffer.__init__ = functools.partialmethod(
        module.ReplayBuffer.__init__, poll_interval=seconds
    )


def scale_pauses(module: Any, scale: float) -> None:
    """Let verl's client pause ``scale`` times shorter.

    It sleeps 1 s before an interrupted request goes on, which on an emulated clock are minutes.

    Args:
        module: ``verl.workers.rollout.llm_server``.
    """

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / scale)

    module.asyncio = types.SimpleNamespace(**vars(asyncio) | {"sleep": sleep})


def add_receiver(module: Any, name: str, path: str) -> None:
    """Let verl find the adapter of a rollout engine, which it has no function to register.

    Args:
        module: ``verl.workers.rollout.base``.
        name: of the engine (``rollout.name``).
        path: of the class, with dots.
    """
    module._ROLLOUT_REGISTRY[name, "async"] = path
