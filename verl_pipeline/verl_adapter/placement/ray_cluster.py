"""Ray's cluster against what a run asks for: refused, awaited, or watched while it starts.

Invariants:
* Between ``ray.init`` and the end of the run nothing waits for Ray in silence: after
  :data:`REPORT_EVERY_S` a line says what is awaited and what is free, after
  ``deadlines.cluster_s`` the run ends with an error that says the same.
* A cluster that can grow is refused nothing that it could grow to.
"""

import os
import time
from collections.abc import Callable, Sequence

import ray
from omegaconf import DictConfig
from ray._private import state
from ray._private.services import find_bootstrap_address
from verl.utils.device import get_resource_name

from verl_pipeline.trainer.deadlines import DeadlineExceeded
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, ConfigError
from verl_pipeline.verl_adapter.placement.ray_slots import (
    describe_nodes,
    describe_requests,
    find_shortage,
    list_requests,
    sum_slots,
)
from verl_pipeline.verl_adapter.placement.slot_placement import NodeSlots, SlotRequest

REPORT_EVERY_S = 30.0
_POLL_S = 1.0
_WATCH_S = 5.0


class NotStarted(DeadlineExceeded):
    """Ray did not start in time what the run asks for."""


def read_nodes(device: str, *, free: bool = False) -> list[NodeSlots]:
    """Slots of the living nodes, all or those that nobody holds, by Ray's id of the node."""
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    slots = {key: node["Resources"] for key, node in nodes.items()}
    if free:
        slots |= {
            key: resources
            for key, resources in state.available_resources_per_node().items()
            if key in nodes
        }
    return [
        NodeSlots(
            nodes[key]["NodeManagerAddress"],
            slots[key].get("CPU", 0),
            slots[key].get(device, 0),
            key,
        )
        for key in sorted(nodes)
    ]


def check_connection(config: DictConfig) -> None:
    """Refuse sizes of a Ray that runs already; call before ``ray.init``.

    Raises:
        ConfigError: Ray would refuse them.
    """
    given = config.ray_kwargs.ray_init
    address = given.get("address") or os.environ.get("RAY_ADDRESS")
    if not address or address == "auto":
        # `ray start` leaves it in a file; without an address Ray joins what that names.
        address = find_bootstrap_address(given.get("_temp_dir"))
    sizes = [name for name in ("num_cpus", "num_gpus") if given.get(name) is not None]
    if not address or address == "local" or not sizes or ray.is_initialized():
        return
    shown = " ".join(f"ray_kwargs.ray_init.{name}={given[name]}" for name in sizes)
    fix = " ".join(f"ray_kwargs.ray_init.{name}=null" for name in sizes)
    raise ConfigError(
        f"{shown}: the Ray at {address} runs already and has its own number of slots; set {fix}, "
        "and give the nodes' slots to `ray start`"
    )


def check_cluster(config: DictConfig) -> None:
    """Compare what the run will ask for with what Ray has; call after ``ray.init``.

    Raises:
        ConfigError: Ray has too few slots, and no autoscaler that could bring them.
    """
    device, requests = get_resource_name(), list_requests(config)
    nodes = _read_ceiling(device) or read_nodes(device)
    shortage = find_shortage(requests, nodes, device)
    if shortage:
        raise ConfigError(_describe_refusal(config, shortage, requests, nodes, device))


def _read_ceiling(device: str) -> list[NodeSlots]:
    """All that an autoscaler may add up to, as one node; [] without an autoscaler."""
    most = state.state.get_max_resources_from_cluster_config()
    if most is None:
        return []
    return [NodeSlots("at its largest", most.get("CPU", 0), most.get(device, 0))]


def can_grow(device: str) -> bool:
    """Whether an autoscaler may bring nodes."""
    return bool(_read_ceiling(device))


def _describe_refusal(
    config: DictConfig,
    shortage: str,
    requests: Sequence[SlotRequest],
    nodes: Sequence[NodeSlots],
    device: str,
) -> str:
    cpus, devices = sum_slots(requests)
    settings = []
    if cpus > sum(node.cpus for node in nodes):
        settings.append(f"ray_kwargs.ray_init.num_cpus={cpus}")
    if devices > sum(node.devices for node in nodes) and config.trainer.device == "cpu":
        settings.append(f"ray_kwargs.ray_init.num_gpus={devices}")
    advice = (
        "ask for less, or start the cluster's nodes with more (ray start, SLURM's --cpus-per-task)"
    )
    if settings:
        advice = (
            f"set {' '.join(settings)} if this command starts Ray (slots may outnumber cores); "
            f"else {advice}"
        )
    return (
        f"Ray's cluster is too small for this run: {shortage} ({describe_nodes(nodes, device)}); "
        f"{advice}. What it asks for: {describe_requests(requests, device)}"
    )


def await_slots(config: DictConfig, seconds: float, report: Callable[[str], None] = print) -> None:
    """Wait until nobody else holds the slots that this run will ask for.

    Raises:
        ConfigError: as :func:`check_cluster`.
        NotStarted: others still held them after ``seconds``.
    """
    check_cluster(config)
    device, requests = get_resource_name(), list_requests(config)
    if _read_ceiling(device):
        return  # an autoscaler adds nodes only for what has been asked for
    start, reported = time.monotonic(), 0.0
    while shortage := find_shortage(requests, nodes := read_nodes(device, free=True), device):
        waited = time.monotonic() - start
        what = (
            f"Ray's cluster is large enough for this run, but busy: {shortage} (free on "
            f"{describe_nodes(nodes, device)})"
        )
        if waited >= seconds:
            raise NotStarted(
                f"{what}, for {seconds:g} s; end other jobs (`ray status` shows what they hold), "
                f"or raise {PIPELINE_KEY}.deadlines.cluster_s to wait longer"
            )
        if waited - reported >= REPORT_EVERY_S:
            reported = waited
            report(f"[start] {what}; waited {waited:.0f} s of {seconds:g} s")
        time.sleep(min(_POLL_S, seconds - waited))


class PlacementWatch:
    """Names what Ray has not placed yet, and ends the wait for it, but not an autoscaler's.

    Args:
        seconds: the longest wait for one actor or placement group.
    """

    def __init__(self, seconds: float, report: Callable[[str], None] = print):
        self._seconds, self._report = seconds, report
        self._since: dict[str, float] = {}
        self._reported = time.monotonic()

    def wait(self, result: ray.ObjectRef) -> None:
        """Wait until ``result`` is there, or an error in its place.

        Raises:
            NotStarted: something that this job asked Ray for was not placed in time.
        """
        while not ray.wait([result], timeout=_WATCH_S, fetch_local=False)[0]:
            self._check_pending()

    def _check_pending(self) -> None:
        now, pending = time.monotonic(), list_pending()
        self._since = {key: self._since.get(key, now) for key in pending}
        if not pending:
            return
        waited = now - min(self._since.values())
        if waited < min(REPORT_EVERY_S, self._seconds):
            return
        awaited = ", ".join(
            pending[key] for key in sorted(pending) if now - self._since[key] >= 0.5 * waited
        )
        device = get_resource_name()
        free = describe_nodes(read_nodes(device, free=True), device)
        what = f"{awaited}: not started by Ray for {waited:.0f} s (free on {free})"
        if waited >= self._seconds and not _read_ceiling(device):
            raise NotStarted(
                f"{what}; free slots for it, look at the logs in Ray's session folder, or raise "
                f"{PIPELINE_KEY}.deadlines.cluster_s"
            )
        if now - self._reported >= REPORT_EVERY_S:
            self._reported = now
            self._report(f"[start] {what}; at most {self._seconds:g} s")


def list_pending() -> dict[str, str]:
    """Actors and placement groups of this job without a process or a place, in words, by id."""
    job = ray.get_runtime_context().get_job_id()
    actors = state.actors(job_id=ray.JobID(bytes.fromhex(job)), actor_state_name="PENDING_CREATION")
    pending = {
        key: f"actor {actor['Name'] or actor['ActorClassName']}"
        for key, actor in actors.items()
        if not actor["Pid"]
    }
    for key, group in ray.util.placement_group_table().items():
        # The id of a placement group ends with that of its job.
        if group["state"] == "PENDING" and key.endswith(job):
            bundles = list(group["bundles"].values())
            slots = " + ".join(f"{count:g} {name}" for name, count in sorted(bundles[0].items()))
            pending[key] = f"placement group {group['name']} ({len(bundles)} x {slots})"
    return pending
