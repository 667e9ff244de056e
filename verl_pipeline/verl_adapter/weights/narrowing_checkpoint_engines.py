"""verl's checkpoint engines ``nccl`` and ``nixl``, which send weights in the rollout's dtype, and
all that can be checked or kept in host memory on arrival, ``mooncake`` included.

verl's own ``nccl`` and ``nixl`` take ``rollout_dtype`` and ignore it: a trainer's fp32 masters
travel as fp32, twice the bytes. (Its ``mooncake``, ``kimi_ckpt_engine`` and ``delta_sharded``
cast.) verl imports this module in the processes that need it, through
``rollout.checkpoint_engine.custom_backend_module``.

Invariant: the engine keeps its name and all else; one that cannot be imported here stays verl's to
report.
"""

from collections.abc import Iterator

import torch
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry

from verl_pipeline.verl_adapter.weights.observed_sender import ObservedSender
from verl_pipeline.verl_adapter.weights.storing_engine import StoringEngine
from verl_pipeline.weight_sync.rollout_dtype import NarrowedWeights, Weight, parse_dtype

NARROWED = ("nccl", "nixl")
CASTING = ("mooncake",)


class NarrowingSender(CheckpointEngine):
    """Placed before an engine of verl's: casts what it sends.

    Args:
        rollout_dtype: torch dtype name that matrices travel in ("bfloat16"), or None to send them
            as the trainer holds them.
    """

    def __init__(self, *args, rollout_dtype: str | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.sent_dtype: torch.dtype | None = parse_dtype(rollout_dtype)

    async def send_weights(  # type: ignore[override]
        self, weights: Iterator[Weight], global_steps: int | None = None
    ) -> dict[str, float]:
        """As verl's; the sender also reports ``weight_sync/bytes`` and ``weight_sync/tensors``."""
        narrowed = NarrowedWeights(weights, self.sent_dtype)
        report = await super().send_weights(narrowed, global_steps) or {}
        if self.rank != 0:
            return report
        counted = {
            "weight_sync/bytes": float(narrowed.nbytes),
            "weight_sync/tensors": float(narrowed.tensors),
        }
        return {**report, **counted}


def register_narrowing_engines() -> None:
    """Put :class:`NarrowingSender`, what observes its result and what stores it before each of
    ``NARROWED`` and ``CASTING`` that this process has; the latter cast by themselves.
    """
    for backend in (*NARROWED, *CASTING):
        engine = CheckpointEngineRegistry._registry.get(backend)
        if engine is None or issubclass(engine, StoringEngine):
            continue
        senders = (NarrowingSender, ObservedSender) if backend in NARROWED else (ObservedSender,)
        completed = type(f"Storing{engine.__name__}", (StoringEngine, *senders, engine), {})
        CheckpointEngineRegistry.register(backend)(completed)


register_narrowing_engines()
