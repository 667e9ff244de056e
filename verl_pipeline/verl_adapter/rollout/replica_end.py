"""The end of a lost replica: its processes, and what they leave behind on its nodes.

Invariants:
* What is ended was a process of the replica, or below one, when it was noted or is now; a process
  id that another process has meanwhile is left alone.
* A replica that hangs is ended like one that died: nothing of it goes on beside the others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from verl_pipeline.run_end import RunEnd, note_processes, remove_sockets

# For engines to end in order, and for the rest.
ENGINES_S, REST_S = 5.0, 5.0
# For the node to start the process that ends the others.
START_S = 60.0


@dataclass(frozen=True)
class Footprint:
    """What an actor of a replica holds on its node.

    Attributes:
        node: Ray's id of the node.
        processes: ids and times of creation of the actor's process, of those below it, and of its
            engine's workers.
        segments: paths of the shared memory that they have mapped.
    """

    node: str
    processes: frozenset[tuple[int, float]]
    segments: frozenset[str]


def note_footprints(actors: Sequence[Any], seconds: float) -> list[Footprint]:
    """Of those actors that answer within ``seconds``."""
    asked = [(actor.__ray_call__.remote(_note_actor), _note_workers(actor)) for actor in actors]
    answers = [answer for pair in asked for answer in pair if answer is not None]
    ray.wait(answers, num_returns=len(answers), timeout=seconds)
    found = []
    for own, workers in asked:
        if (answer := _read(own)) is not None:
            node, processes = answer
            found.append(_make_footprint(node, [*processes, *(_read(workers) or [])]))
    return found


def end_replica(
    actors: Sequence[Any], footprints: Sequence[Footprint], kept: Sequence[Any], seconds: float
) -> None:
    """End what is left of a replica.

    Args:
        actors: its servers and workers.
        footprints: of them, as far as they have been noted.
        kept: of its workers, those that live on.
        seconds: for actors to answer.

    Raises:
        RayError: as :func:`end_footprints`.
    """
    noted = footprints or note_footprints(actors, seconds)  # lost before the first look
    nodes = note_footprints(kept, seconds) if kept else []
    spared = {known for footprint in nodes for known in footprint.processes}
    end_footprints(Footprint(one.node, one.processes - spared, one.segments) for one in noted)


def _note_workers(actor: Any) -> ray.ObjectRef | None:
    """Of a server of ours, what its engine's workers tell: they need not be below it."""
    return actor.note_workers.remote() if hasattr(actor, "note_workers") else None


def _read(answer: ray.ObjectRef | None) -> Any:
    try:
        return None if answer is None else ray.get(answer, timeout=0)
    except ray.exceptions.RayError:  # it has died, or does not know
        return None


def _make_footprint(node: str, noted: Iterable[Sequence[Any]]) -> Footprint:
    processes = frozenset((pid, created) for pid, created, _segments in noted)
    segments = frozenset(path for _pid, _created, segments in noted for path in segments)
    return Footprint(node, processes, segments)


def _note_actor(_actor: Any) -> tuple[str, list[list]]:
    """Runs in the actor's process."""
    own = psutil.Process()
    node = ray.get_runtime_context().get_node_id()
    return node, note_processes([own, *own.children(recursive=True)])


def end_footprints(footprints: Iterable[Footprint]) -> None:
    """End these processes and remove what they leave behind; nodes that are gone have nothing.

    Raises:
        RayError: a node did not do so in time.
    """
    by_node: dict[str, list[Footprint]] = {}
    for footprint in footprints:
        by_node.setdefault(footprint.node, []).append(footprint)
    task = ray.remote(_end_on_node)
    ended = {
        node: task.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(found)
        for node, found in by_node.items()
        if node in list_living_nodes()
    }
    for node, answer in ended.items():
        try:
            ray.get(answer, timeout=START_S + ENGINES_S + REST_S)
        except ray.exceptions.RayError:
            if node in list_living_nodes():
                raise  # else it went meanwhile, with all that was on it


def list_living_nodes() -> set[str]:
    """Ray's ids of them."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _end_on_node(footprints: list[Footprint]) -> None:
    """Runs on the replica's node."""
    noted = {known for footprint in footprints for known in footprint.processes}
    segments = {Path(path) for footprint in footprints for path in footprint.segments}
    end = RunEnd(lambda: _find_processes(noted), segments)
    end.end_engines(ENGINES_S)
    end.end_rest(0.0, REST_S)
    remove_sockets()


def _find_processes(noted: Iterable[tuple[int, float]]) -> list[psutil.Process]:
    """Those of the noted processes that are there, and what is below them."""
    found: set[psutil.Process] = set()
    for pid, created in noted:
        try:
            process = psutil.Process(pid)
            if process.create_time() == created:
                found.update({process, *process.children(recursive=True)})
        except psutil.NoSuchProcess:
            continue
    return list(found)
