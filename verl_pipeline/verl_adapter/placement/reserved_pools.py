"""The pools of devices, reserved in Ray together before a process of any of them starts.

verl makes the placement groups of each pool when it starts the pool's processes. The first pool
then takes what a later one needs, such as the last node with all of its devices, and the later one
waits for ever.

Invariants:
* All groups of the run's pools are placed, or none is held: after an error all are removed.
* A group is what verl would make (bundles, one node a group), on the node that
  :mod:`.slot_placement` gives it. verl's classes use it and make no group of their own.
* Nothing waits longer than its deadline; the error names the group that did not fit and what each
  node has free. With an autoscaler the wait ends when its cluster has grown enough: it grows for
  groups that wait.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ray.util import placement_group, placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup
from verl.single_controller.ray import ResourcePoolManager
from verl.single_controller.ray.base import sort_placement_group_by_node_ip
from verl.utils.device import get_resource_name

from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, Deadlines
from verl_pipeline.verl_adapter.placement.ray_cluster import (
    REPORT_EVERY_S,
    NotStarted,
    can_grow,
    read_nodes,
)
from verl_pipeline.verl_adapter.placement.ray_slots import (
    ROLLOUT_POOL,
    count_replica_nodes,
    describe_nodes,
    find_shortage,
    list_late_processes,
    list_pools,
)
from verl_pipeline.verl_adapter.placement.slot_placement import (
    NodeSlots,
    NoPlace,
    Place,
    SlotRequest,
    place_groups,
)

# Ray places a group in milliseconds if the slots are free; another job may have taken them.
_SETTLE_S = 10.0
_POLL_S = 1.0
_NODE_LABEL = "ray.io/node-id"

Groups = dict[str, list[PlacementGroup]]


@dataclass
class ReservedPools(ResourcePoolManager):
    """verl's pools of the trainer, on groups that are placed already.

    Attributes:
        groups: by pool, one group a node, in the order in which verl numbers its ranks.
        replicas: the groups of each rollout replica, one a node.
    """

    groups: Groups = field(default_factory=dict)
    replicas: list[list[PlacementGroup]] = field(default_factory=list)

    def create_resource_pool(self) -> None:
        """verl's pools, each with its groups; a pool that nothing starts in has none."""
        super().create_resource_pool()
        for name, pool in self.resource_pool_dict.items():
            pool.pgs = self.groups.get(name)

    def _check_resource_available(self) -> None:
        """The groups hold the slots already, so that verl would find none free."""


def reserve_pools(
    trainer: Any, deadlines: Deadlines, report: Callable[[str], None] = print
) -> ReservedPools:
    """Reserve the pools of verl's trainer, and of the rollout replicas.

    Args:
        trainer: right after its ``_init_resource_pool_mgr``.
        deadlines: ``cluster_s`` is the longest wait, unless an autoscaler may bring more nodes.

    Raises:
        NotStarted: the groups could not all be placed in time.
    """
    manager, config = trainer.resource_pool_manager, trainer.config
    requests = list_pools(config)
    groups = place_pools(requests, list_late_processes(config), deadlines.cluster_s, report)
    rollout = groups.pop(ROLLOUT_POOL, [])
    nodes = count_replica_nodes(config)
    return ReservedPools(
        resource_pool_spec=manager.resource_pool_spec,
        mapping=manager.mapping,
        groups={name: sort_placement_group_by_node_ip(pool) for name, pool in groups.items()},
        replicas=[rollout[first : first + nodes] for first in range(0, len(rollout), nodes)],
    )


def place_pools(
    pools: Sequence[SlotRequest],
    late: Sequence[SlotRequest],
    seconds: float,
    report: Callable[[str], None] = print,
) -> Groups:
    """Placed groups of each pool.

    Args:
        late: what other processes will ask for later, which the groups must leave.

    Raises:
        NotStarted: as :func:`reserve_pools`.
    """
    device = get_resource_name()
    start, reported = time.monotonic(), 0.0
    # Groups that wait for an autoscaler, on no node in particular.
    awaited: Groups = {}
    try:
        while True:
            nodes = _add_slots(read_nodes(device, free=True), awaited, device)
            problem = find_shortage([*pools, *late], nodes, device)
            if problem is None:
                _remove_groups(awaited)
                awaited = {}
                places = place_groups([*pools, *late], nodes)
                assert not isinstance(places, NoPlace), "the search found a place before"
                left = seconds - (time.monotonic() - start)
                groups, problem = _try_places(places, min(_SETTLE_S, left), device)
                if problem is None:
                    return groups
            elif can_grow(device) and not awaited:
                awaited = make_groups(
                    [Place(pool, None) for pool in pools for _ in range(pool.count)], device
                )
            waited = time.monotonic() - start
            free = describe_nodes(read_nodes(device, free=True), device)
            what = f"the run's pools have no place in Ray's cluster: {problem} (free on {free})"
            if waited >= seconds and not can_grow(device):
                raise NotStarted(
                    f"{what}, for {seconds:g} s; end other jobs (`ray status` shows what they "
                    f"hold), ask for smaller pools, or raise {PIPELINE_KEY}.deadlines.cluster_s to "
                    "wait longer"
                )
            if waited - reported >= REPORT_EVERY_S:
                reported = waited
                report(f"[start] {what}; waited {waited:.0f} s")
            time.sleep(_POLL_S)
    except BaseException:
        _remove_groups(awaited)
        raise


def _try_places(places: Sequence[Place], seconds: float, device: str) -> tuple[Groups, str | None]:
    """The groups, placed; or {} and which of them was not."""
    deadline = time.monotonic() + seconds
    groups = make_groups(places, device)
    try:
        for name, made in groups.items():
            for number, group in enumerate(made, start=1):
                # Ray cuts the seconds to an integer.
                if not group.wait(max(1, math.ceil(deadline - time.monotonic()))):
                    _remove_groups(groups)
                    return {}, f"Ray did not place group {number} of {len(made)} of {name}"
    except BaseException:
        _remove_groups(groups)
        raise
    return groups, None


def make_groups(places: Sequence[Place], device: str, label: str = "") -> Groups:
    """Placement groups as verl makes them, the largest first; returns before they are placed.

    Args:
        label: in their names, of which Ray takes none twice.
    """
    groups: Groups = {}
    for place in places:
        pool, count = place.request.pool, place.request.devices
        if not pool:
            continue
        bundle = {"CPU": place.request.cpus // count, device: 1}
        labels = [{_NODE_LABEL: place.node.node_id}] * count if place.node else None
        made = groups.setdefault(pool, [])
        made.append(
            placement_group(
                [dict(bundle) for _ in range(count)],
                strategy="STRICT_PACK",
                name=f"{pool}verl_group_{count}:{label}{len(made)}",
                bundle_label_selector=labels,
            )
        )
    return groups


def _remove_groups(groups: Groups) -> None:
    for made in groups.values():
        for group in made:
            remove_placement_group(group)


def _add_slots(nodes: Sequence[NodeSlots], groups: Groups, device: str) -> list[NodeSlots]:
    """``nodes`` with the slots that placed ``groups`` hold there."""
    by_id = {node.node_id: node for node in nodes}
    for group in [group for made in groups.values() for group in made]:
        table = placement_group_table(group)
        for index, bundle in table["bundles"].items() if table["state"] == "CREATED" else ():
            node = by_id[table["bundles_to_node_id"][index]]
            by_id[node.node_id] = replace(
                node, cpus=node.cpus + bundle["CPU"], devices=node.devices + bundle[device]
            )
    return list(by_id.values())
