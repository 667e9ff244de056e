"""A place for a replica on whatever node of Ray's cluster has room, also one that joins later.

Invariants:
* One place is asked for at a time; Ray grants it when it can, and an autoscaler brings a node for
  it. Nobody waits.
* What is asked for is what the pool's replicas have from the start: groups, devices and CPUs.
"""

from omegaconf import DictConfig
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup
from verl.utils.device import get_resource_name

from verl_pipeline.verl_adapter.placement.ray_slots import (
    ROLLOUT_POOL,
    count_replica_nodes,
    list_pools,
)
from verl_pipeline.verl_adapter.placement.reserved_pools import make_groups
from verl_pipeline.verl_adapter.placement.slot_placement import Place
from verl_pipeline.verl_adapter.rollout.replica_end import list_living_nodes


class ReplicaPlaces:
    """Asks for the groups of one replica after another.

    Args:
        config: verl's configuration.
    """

    def __init__(self, config: DictConfig):
        (request,) = [one for one in list_pools(config) if one.pool == ROLLOUT_POOL]
        self._places = [Place(request, None)] * count_replica_nodes(config)
        self._groups: list[PlacementGroup] = []
        self._asked = 0

    def take(self) -> list[PlacementGroup] | None:
        """The groups of a replica, one a node; None while Ray has no room for them."""
        if not self._groups:
            self._asked += 1
            label = f"joined_{self._asked}_"
            self._groups = make_groups(self._places, get_resource_name(), label)[ROLLOUT_POOL]
        if not are_placed(self._groups):
            return None
        groups, self._groups = self._groups, []
        return groups

    def give_up(self) -> None:
        """Ask for no place any more."""
        groups, self._groups = self._groups, []
        remove_groups(groups)


def are_placed(groups: list[PlacementGroup]) -> bool:
    """Whether all have their slots; not if the node of one is gone."""
    living = list_living_nodes()
    tables = [placement_group_table(group) for group in groups]
    return all(
        table["state"] == "CREATED" and living.issuperset(table["bundles_to_node_id"].values())
        for table in tables
    )


def remove_groups(groups: list[PlacementGroup]) -> None:
    """Let others have their slots."""
    for group in groups:
        remove_placement_group(group)
