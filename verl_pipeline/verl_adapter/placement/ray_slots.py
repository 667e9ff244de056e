"""The slots that a run asks Ray for, and whether a cluster's nodes can hold them.

Slots are Ray's bookkeeping of CPUs and devices. What asks for a slot that is not there waits for
ever, without a word. An actor that verl gives no ``num_cpus`` (task runner, agent loop workers,
reward workers, rollout servers) takes none.

Invariants:
* Nothing here talks to Ray: a plan can be checked before it starts.
* A plan that some order of placement can hold is never refused.
"""

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf
from verl.single_controller.ray import ResourcePoolManager

from verl_pipeline.trainer.pipeline_config import ROLLOUT, TRAINER_MODE
from verl_pipeline.verl_adapter.checks.config_checks import count_replica_devices
from verl_pipeline.verl_adapter.placement.slot_placement import (
    NodeSlots,
    NoPlace,
    SlotRequest,
    describe_slots,
    place_groups,
)

STORAGE_UNITS = "transfer_queue.backend.SimpleStorage.num_data_storage_units"
# Modes whose rollout servers have devices of their own.
SEPARATE_MODES = (TRAINER_MODE, "separate_async")
# verl's names of its pools (PPOTrainer._init_resource_pool_mgr), and ours of the rollout's.
TRAINER_POOL, REWARD_POOL, TEACHER_POOL = "global_pool", "reward_pool", "teacher_pool"
ROLLOUT_POOL = "rollout_pool"
# verl's RolloutReplica.init_standalone asks for this many CPUs with each device.
CPUS_PER_ROLLOUT_DEVICE = 2
_SHOWN_NODES = 6


def list_requests(config: DictConfig) -> list[SlotRequest]:
    """All that a run of this configuration asks Ray for, in any trainer mode."""
    return [*_list_queue(config), *list_pools(config), *list_late_processes(config)]


def _list_queue(config: DictConfig) -> list[SlotRequest]:
    requests = [SlotRequest("TransferQueue's controller", 1, 1)]
    if config.transfer_queue.backend.storage_backend == "SimpleStorage":
        units = OmegaConf.select(config, STORAGE_UNITS)
        who = f"TransferQueue's storage units ({STORAGE_UNITS}={units})"
        requests.append(SlotRequest(who, units, 1, in_turn=True))
    return requests


def list_pools(config: DictConfig) -> list[SlotRequest]:
    """The pools of devices, each with its name."""
    requests = [_request_pool("trainer", config.trainer, TRAINER_POOL)]
    if config.trainer.v1.trainer_mode in SEPARATE_MODES:
        requests.append(_request_rollout(config))
    reward_model = config.reward.reward_model
    if reward_model.enable and reward_model.enable_resource_pool:
        requests.append(_request_pool("reward.reward_model", reward_model, REWARD_POOL))
    if OmegaConf.select(config, "distillation.enabled"):
        requests.append(_request_pool("distillation", config.distillation, TEACHER_POOL))
    return requests


def list_late_processes(config: DictConfig) -> list[SlotRequest]:
    """Processes with slots of their own that start when the pools are there."""
    reward = config.reward
    if reward.reward_manager.name != "remote":
        return []
    # Each of verl's reward workers starts as many processes as there are reward workers.
    who = f"processes of the reward manager (reward.num_workers={reward.num_workers}, squared)"
    return [SlotRequest(who, reward.num_workers**2, 1)]


def _request_pool(name: str, section: DictConfig, pool: str) -> SlotRequest:
    nodes, devices = section.nnodes, section.n_gpus_per_node
    who = f"pool of {name}.nnodes={nodes} x n_gpus_per_node={devices}"
    cpus = devices * ResourcePoolManager.max_colocate_count
    return SlotRequest(who, nodes, cpus, devices, pool=pool)


def _request_rollout(config: DictConfig) -> SlotRequest:
    rollout = config.actor_rollout_ref.rollout
    world = count_replica_devices(config)
    devices = min(rollout.n_gpus_per_node, world)
    groups = rollout.nnodes * rollout.n_gpus_per_node // world * count_replica_nodes(config)
    who = (
        f"rollout servers of {ROLLOUT}.nnodes={rollout.nnodes} x n_gpus_per_node="
        f"{rollout.n_gpus_per_node}"
    )
    return SlotRequest(who, groups, devices * CPUS_PER_ROLLOUT_DEVICE, devices, pool=ROLLOUT_POOL)


def count_replica_nodes(config: DictConfig) -> int:
    """Groups of one rollout replica, each on one node."""
    world = count_replica_devices(config)
    return world // min(config.actor_rollout_ref.rollout.n_gpus_per_node, world)


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
    places = place_groups(free, left)
    if isinstance(places, NoPlace):
        return (
            f"{cpus} CPU and {devices} {device} slots: there, but spread over too many nodes; what "
            f"does not fit is {places.describe(device)}"
        )
    return None


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
