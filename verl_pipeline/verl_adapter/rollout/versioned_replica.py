"""Replicas whose servers change weights while requests run (``weight_sync_mode: in_flight``).

Invariant: vLLM is imported only where it is the engine; the import takes seconds.
"""

from typing import Any

import ray
from omegaconf import DictConfig, OmegaConf
from verl.workers.rollout.replica import RolloutReplica

from verl_pipeline.trainer.pipeline_config import ROLLOUT


def version_servers(replica_class: type[RolloutReplica]) -> type[RolloutReplica]:
    """``replica_class``, one of vLLM's, with servers that can be frozen
    (:class:`.versioned_server.VersionedServer`).

    Apply it before :func:`.rollout_servers.place_replicas`, whose replicas derive their servers
    from the ones that they find.
    """
    from verl_pipeline.verl_adapter.rollout.versioned_server import VersionedServer

    class VersionedReplica(replica_class):  # type: ignore[valid-type,misc]
        """A replica of versioned servers."""

        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.server_class = ray.remote(VersionedServer)

    return VersionedReplica


def find_freeze_fault(config: DictConfig) -> str | None:
    """Why the servers of ``config`` cannot change weights in flight, with the fix; else None."""
    name = OmegaConf.select(config, f"{ROLLOUT}.name")
    if name != "vllm":
        return (
            f"needs {ROLLOUT}.name=vllm: {name} cannot hold its requests while it takes weights; "
            "choose weight_sync_mode=rolling"
        )
    if OmegaConf.select(config, f"{ROLLOUT}.disaggregation.enabled"):
        return (
            f"needs {ROLLOUT}.disaggregation.enabled=False: prefill and decode would have different"
            " weights; choose weight_sync_mode=drained"
        )
    return None
