"""A weight backend as a user would register one."""

from verl.checkpoint_engine.base import CheckpointEngineRegistry

from verl_pipeline.verl_adapter.weights.checkpoint_engine import GlooCheckpointEngine


@CheckpointEngineRegistry.register("planted_by_a_test")
class OwnBackend(GlooCheckpointEngine):
    """Ours under another name."""
