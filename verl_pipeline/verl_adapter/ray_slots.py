"""The slots that a run asks Ray for, and whether a cluster's nodes can hold them.

Slots are Ray's bookkeeping of CPUs and devices. What asks for a slot that is not there waits for
ever, without a word. An actor that verl gives no ``num_cpus`` (task runner, agent loop workers,
reward workers, rollout servers) takes none.

Invariants:
* Nothing here talks to Ray: a plan can be checked before it starts.
* A plan that some order of placement can hold is never refused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from omegaconf import DictConfig, OmegaConf
from verl.single_controller.ray import ResourcePoolManager

from verl_pipeline.trainer.pipeline_config import ROLLOUT, TRAINER_MODE
from verl_pipeline.verl_adapter.config_checks import count_replica_devices

STORAGE_UNITS = "transfer_queue.backend.SimpleStorage.num_data_storage_units"
# Modes whose rollout servers have devices of their own.
SEPARATE_MODES = (TRAINER_MODE, "separate_async")
# verl's RolloutReplica.init_standalone asks for this many CPUs with each device.
CPUS_PER_ROLLOUT_DEVICE = 2
# Placements that are tried before one counts as found.
_LONGEST_SEARCH = 5_000
_SHOWN_NODES = 6


@dataclass(frozen=True)
class SlotRequest:
    """``count`` groups of slots, each on one node.

    Attributes:
        who: what asks, with the setting that makes it ask for less.
        cpus: CPU slots of one group.
        devices: device slots of one group.
        in_turn: group after group on the next node, whatever is free there.
    """

    who: str
    count: int
    cpus: int
    devices: int = 0
    in_turn: bool = False


@dataclass(frozen=True)
class NodeSlots:
    """Slots of one node; ``name`` is its address."""

    name: str
    cpus: float
    devices: float

    def can_hold(self, request: SlotRequest) -> bool:
        """Whether one group of ``request`` fits."""
        return self.cpus >= request.cpus and self.devices >= request.devices

    def take(self, request: SlotRequest) -> "NodeSlots":
        """What is left after one group of ``request``."""
        return replace(self, cpus=self.cpus - request.cpus, devices=self.devices - request.devices)


def list_requests(config: DictConfig) -> list[SlotRequest]:
    """All that a run of this configuration asks Ray for, in any trainer mode."""
    requests = [SlotRequest("TransferQueue's controller", 1, 1)]
    if config.transfer_queue.backend.storage_backend == "SimpleStorage":
        units = OmegaConf.select(config, STORAGE_UNITS)
        who = f"TransferQueue's storage units ({STORAGE_UNITS}={units})"
        requests.append(SlotRequest(who, units, 1, in_turn=True))
    requests.append(_request_pool("trainer", config.trainer))
    if config.trainer.v1.trainer_mode in SEPARATE_MODES:
        requests += _request_rollout(config)
    reward = config.reward
    if reward.reward_model.enable and reward.reward_model.enable_resource_pool:
        requests.append(_request_pool("reward.reward_model", reward.reward_model))
    if OmegaConf.select(config, "distillation.enabled"):
        requests.append(_request_pool("distillation", config.distillation))
    if reward.reward_manager.name == "remote":
        # Each of verl's reward workers starts as many processes as there are reward workers.
        who = f"processes of the reward manager (reward.num_workers={reward.num_workers}, squared)"
        requests.append(SlotRequest(who, reward.num_workers**2, 1))
    return requests


def _request_pool(name: str, section: DictConfig) -> SlotRequest:
    nodes, devices = section.nnodes, section.n_gpus_per_node
    who = f"pool of {name}.nnodes={nodes} x n_gpus_per_node={devices}"
    return SlotRequest(who, nodes, devices * ResourcePoolManager.max_colocate_count, devices)


def _request_rollout(config: DictConfig) -> list[SlotRequest]:
    """[] with disaggregated prefill, whose replicas verl sizes in each engine's own way."""
    rollout = config.actor_rollout_ref.rollout
    if OmegaConf.select(rollout, "disaggregation.enabled"):
        return []
    world = count_replica_devices(config)
    devices = min(rollout.n_gpus_per_node, world)
    groups = rollout.nnodes * rollout.n_gpus_per_node // world * (world // devices)
    who = (
        f"rollout servers of {ROLLOUT}.nnodes={rollout.nnodes} x n_gpus_per_node="
        f"{rollout.n_gpus_per_node}"
    )
    return [SlotRequest(who, groups, devices * CPUS_PER_ROLLOUT_DEVICE, devices)]


def sum_slots(requests: Sequence[SlotRequest]) -> tuple[int, int]:
    """CPU slots and device slots of all requests together."""
    cpus = sum(request.count * request.cpus for request in requests)
    return cpus, sum(request.count * request.devices for request in requests)


def find_shortage(
    requests: Sequence[SlotRequest], nodes: Sequence[NodeSlots], device: str
) -> str | None:
    """What these nodes cannot hold, in words; None if they hold all.

    Args:
        nodes: in the order in which TransferQueue fills them: by Ray's id.
        device: Ray's name of a device ("GPU", "NPU").
    """
    cpus, devices = sum_slots(requests)
    have_cpus, have_devices = sum(node.cpus for node in nodes), sum(node.devices for node in nodes)
    missing = [
        f"{name} slots: {need} needed, {have:g} there"
        for name, need, have in (("CPU", cpus, have_cpus), (device, devices, have_devices))
        if need > have
    ]
    if missing:
        return "; ".join(missing)
    left = list(nodes)
    for request in requests:
        for turn in range(request.count if request.in_turn else 0):
            node = left[turn % len(left)]
            if not node.can_hold(request):
                return f"node {node.name} has no slot for its share of {request.who}"
            left[turn % len(left)] = node.take(request)
    free = [request for request in requests if not request.in_turn]
    for request in free:
        if request.count and not any(node.can_hold(request) for node in left):
            return (
                f"no node has {describe_slots(request.cpus, request.devices, device)} for one part "
                f"of the {request.who}"
            )
    if not _can_place(free, left):
        return f"{cpus} CPU and {devices} {device} slots: there, but spread over too many nodes"
    return None


def _can_place(requests: Sequence[SlotRequest], nodes: Sequence[NodeSlots]) -> bool:
    """Whether some order of placement holds all groups; True too if the search is too long."""
    groups = [request for request in requests for _ in range(request.count)]
    groups.sort(key=lambda request: (request.devices, request.cpus), reverse=True)
    start = tuple(sorted((node.devices, node.cpus) for node in nodes))
    open_states, seen = [(0, start)], {(0, start)}
    while open_states and len(seen) < _LONGEST_SEARCH:
        placed, free = open_states.pop()
        if placed == len(groups):
            return True
        for state in _place_group(groups[placed], free):
            if (placed + 1, state) not in seen:
                seen.add((placed + 1, state))
                open_states.append((placed + 1, state))
    return bool(open_states)


def _place_group(
    group: SlotRequest, free: tuple[tuple[float, float], ...]
) -> Iterator[tuple[tuple[float, float], ...]]:
    """What is left for each node that could take the group; the tightest node comes last."""
    for devices, cpus in sorted(set(free), reverse=True):
        if devices >= group.devices and cpus >= group.cpus:
            left = list(free)
            left.remove((devices, cpus))
            left.append((devices - group.devices, cpus - group.cpus))
            yield tuple(sorted(left))


def describe_slots(cpus: float, devices: float, device: str) -> str:
    """``2 CPU``, or ``2 CPU + 1 GPU``."""
    return f"{cpus:g} CPU" + (f" + {devices:g} {device}" if devices else "")


def describe_requests(requests: Sequence[SlotRequest], device: str) -> str:
    """All requests in words."""
    return ", ".join(
        f"{request.who}: {request.count} x {describe_slots(request.cpus, request.devices, device)}"
        for request in requests
    )


def describe_nodes(nodes: Sequence[NodeSlots], device: str) -> str:
    """Slots by node, the first few."""
    shown = [
        f"{node.name}: {describe_slots(node.cpus, node.devices, device)}"
        for node in nodes[:_SHOWN_NODES]
    ]
    more = [f"and {len(nodes) - _SHOWN_NODES} more"] if len(nodes) > _SHOWN_NODES else []
    return ", ".join(shown + more)
