"""The processes that record beside the driver: their clocks, and their last records.

Invariants:
* Nobody waits for them: a process that is busy answers later, one that is dead does not.
* The calls run where the processes' own methods run, so a round trip that had to wait tells little;
  the shortest one counts, and its error is stated.
"""

from typing import Any

import ray

from verl_pipeline.telemetry.clock import estimate_offset
from verl_pipeline.telemetry.recorder import Recorder, RunTarget, find_recorder, open_recorder
from verl_pipeline.telemetry.records import ClockSample

ROUNDS = 3
ANSWER_S = 10.0
FLUSH_S = 5.0


def sample_clocks(driver: Recorder, role: str, actors: list[Any]) -> None:
    """Let these processes record how far their clocks are from the driver's."""
    for position, actor in enumerate(actors):

        def ask(actor: Any = actor) -> float:
            assert driver.target is not None
            asked = actor.__ray_call__.remote(_read_clock, driver.target, role)
            return ray.get(asked, timeout=ANSWER_S)

        try:
            sample = estimate_offset(ask, driver.now, ROUNDS)
        except ray.exceptions.RayError:
            continue  # busy, or dead, which others notice
        actor.__ray_call__.remote(_note_clock, position, sample)


def flush_processes(actors: list[Any]) -> None:
    """Let these processes write what they have recorded, as far as they answer in time."""
    flushed = [actor.__ray_call__.remote(_flush) for actor in actors]
    if flushed:
        ray.wait(flushed, num_returns=len(flushed), timeout=FLUSH_S)


# ---- in the other process ----------------------------------------------------------------------


def _read_clock(_actor: Any, target: RunTarget, role: str) -> float:
    return open_recorder(target, role).now()


def _note_clock(actor: Any, position: int, sample: ClockSample) -> None:
    if recorder := find_recorder():
        recorder.add(sample)
    name_worker = getattr(actor, "name_worker", None)
    if name_worker is not None:
        name_worker(position)


def _flush(_actor: Any) -> None:
    if recorder := find_recorder():
        recorder.flush()
