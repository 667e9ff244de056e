"""verl's checkpoint engine ``gloo``: our bucketed broadcast under verl's interface.

verl imports this module in the processes that need it, through
``rollout.checkpoint_engine.custom_backend_module``.
"""

from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry

from verl_pipeline.verl_adapter.weights.observed_sender import ObservedSender
from verl_pipeline.verl_adapter.weights.storing_engine import StoringEngine
from verl_pipeline.weight_sync.gloo_broadcast import GlooBroadcast


@CheckpointEngineRegistry.register("gloo")
class GlooCheckpointEngine(StoringEngine, ObservedSender, GlooBroadcast, CheckpointEngine):
    """See :class:`~verl_pipeline.weight_sync.gloo_broadcast.GlooBroadcast`."""
