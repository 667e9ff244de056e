"""verl's FSDP2 engine on CPUs, for the actor, the reference model and the critic.

Invariant: only what a CPU cannot do differs from verl's engine; the arithmetic is verl's.
"""

from dataclasses import replace

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead


class _CpuEngineMixin:
    """Never offloads: verl would pin the memory of a forward-only model, which needs a GPU."""

    def _build_fsdp_module(self, module):
        config = self.engine_config  # type: ignore[has-type]
        self.engine_config = replace(config, forward_only=False, offload_policy=False)
        try:
            return super()._build_fsdp_module(module)  # type: ignore[misc]
        finally:
            self.engine_config = config


@EngineRegistry.register(model_type="language_model", backend="fsdp2", device="cpu")
class CpuEngineWithLMHead(_CpuEngineMixin, FSDPEngineWithLMHead):
    """Actor and reference model."""


@EngineRegistry.register(model_type="value_model", backend="fsdp2", device="cpu")
class CpuEngineWithValueHead(_CpuEngineMixin, FSDPEngineWithValueHead):
    """Critic."""
