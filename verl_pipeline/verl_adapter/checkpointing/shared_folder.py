"""Whether all nodes that write or read checkpoints see one folder, proved before a model loads.

verl's trainer ranks write their shards where they run, and its task runner the rest: on several
nodes a checkpoint is whole only in a folder that they share.

Invariants:
* The proof is a file with a random name and content: the task runner writes it, each node reads it
  and writes an answer beside it, and the task runner reads that. Nothing is left behind.
* A node that does not see the folder, cannot write there or does not answer is named.
* One node needs no proof, and neither does a run that writes and reads no checkpoint.
"""

import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import ray
from omegaconf import DictConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from verl.utils.device import get_resource_name

from verl_pipeline.outputs.errors import name_system_errors
from verl_pipeline.trainer.pipeline_config import ConfigError

# A network file system may show a new file late.
SEEN_WITHIN_S = 20.0
ANSWER_WITHIN_S = 180.0
_SHOWN = 5

Probe = Callable[[str, str, float], str]


def check_checkpoint_folder(config: DictConfig) -> None:
    """Prove that the checkpoint folders are shared, if the run uses checkpoints; inside Ray.

    Raises:
        ConfigError: names the nodes where they are not, and why.
        OutputError: this node cannot write there.
    """
    settings = config.trainer
    folders = {}
    if settings.save_freq > 0 or settings.resume_mode == "auto":
        folders["trainer.default_local_dir"] = settings.default_local_dir
    if settings.resume_mode == "resume_path":
        folders["trainer.resume_from_path"] = settings.resume_from_path
    nodes = find_trainer_nodes(settings.n_gpus_per_node)
    for field, folder in folders.items():
        check_shared_folder(field, Path(folder), nodes)


def find_trainer_nodes(devices: int) -> dict[str, str]:
    """Address by Ray's id of each node that can hold a trainer's group, this node aside."""
    own, resource = ray.get_runtime_context().get_node_id(), get_resource_name()
    return {
        node["NodeID"]: node["NodeManagerAddress"]
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] != own and node["Resources"].get(resource, 0) >= devices
    }


def answer_token(folder: str, token: str, seconds: float) -> str:
    """Runs on a node: read the token of ``folder`` and write an answer; returns "" or the fault."""
    path, deadline = Path(folder) / token / "question", time.monotonic() + seconds
    while True:
        try:
            question = path.read_text()
            break
        except OSError as error:
            if time.monotonic() > deadline:
                return f"it does not see a file that the task runner wrote there ({error.strerror})"
        time.sleep(0.2)
    try:
        node = ray.get_runtime_context().get_node_id()
        path.with_name(node).write_text(question)
    except OSError as error:
        return f"it cannot write there ({error.strerror})"
    return ""


def check_shared_folder(
    field: str,
    folder: Path,
    nodes: Mapping[str, str],
    *,
    probe: Probe = answer_token,
    seconds: float = SEEN_WITHIN_S,
) -> None:
    """Prove that ``nodes`` see ``folder`` as this process does.

    Args:
        field: the setting that names the folder.
        folder: absolute; created if needed.
        nodes: address by Ray's id, without this node.
        probe: what runs on each node, as :func:`answer_token`.
        seconds: how long a node waits for the file to show.

    Raises:
        ConfigError: a node does not.
        OutputError: this process cannot write there.
    """
    if not nodes:
        return
    token = f".shared-{uuid.uuid4().hex}"
    place = folder / token
    try:
        with name_system_errors(folder):
            place.mkdir(parents=True)
            (place / "question").write_text(token)
        faults = _ask_nodes(folder, token, nodes, probe, seconds)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if faults:
        shown = "; ".join(f"node {nodes[node]}: {fault}" for node, fault in faults[:_SHOWN])
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise ConfigError(
            f"{field}={folder}: not shared by all nodes: {shown}{more}; name a folder of a file "
            "system that is mounted at the same path on every node that trains"
        )


def _ask_nodes(
    folder: Path, token: str, nodes: Mapping[str, str], probe: Probe, seconds: float
) -> list[tuple[str, str]]:
    """Node and fault, for each node that has one."""
    remote = ray.remote(num_cpus=0, max_retries=0)(probe)
    asked = {
        node: remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(str(folder), token, seconds)
        for node in nodes
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=seconds + ANSWER_WITHIN_S)
    faults = []
    for node, answer in asked.items():
        fault = _read_answer(answer, seconds)
        if not fault and not _wait_for_file(folder / token / node, seconds):
            fault = "the task runner does not see what it wrote there: it is another folder"
        if fault:
            faults.append((node, fault))
    return faults


def _read_answer(answer: ray.ObjectRef, seconds: float) -> str:
    try:
        return ray.get(answer, timeout=0)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(answer, force=True)
        return f"it did not answer within {seconds + ANSWER_WITHIN_S:.0f} s"
    except ray.exceptions.RayError as error:
        # The package may be missing there, or the node may have died.
        return f"it could not be asked ({str(error).strip().splitlines()[-1]})"


def _wait_for_file(path: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
