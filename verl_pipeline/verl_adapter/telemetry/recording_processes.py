"""The processes that record beside the driver: their clocks, and their last records.

Invariants:
* No step waits for them: but for the first time, before step 1, clocks are sampled in a thread. A
  process that is busy answers later, one that is dead does not.
* The calls run where the processes' own methods run, so a round trip that had to wait tells little;
  the shortest one counts, and its error is stated.
"""

import threading
from collections.abc import Callable
from typing import Any

import ray

from verl_pipeline.telemetry.clock import estimate_offset
from verl_pipeline.telemetry.recorder import Recorder, RunTarget, find_recorder, open_recorder
from verl_pipeline.telemetry.records import ClockSample
from verl_pipeline.verl_adapter.telemetry.reward_lanes import record_rewards

ROUNDS = 3
# For an answer at the start, and later, when who is busy is asked again in the next round.
START_ANSWER_S, ANSWER_S = 10.0, 1.0
FLUSH_S = 5.0
# Clocks of computers drift apart by less than a millisecond a minute.
SAMPLE_EVERY_S = 60.0
REWARD = "reward"

Processes = dict[str, list[Any]]


class ProcessClocks:
    """Samples the clocks of a run's processes, first and then about once a minute.

    Args:
        driver: whose clock the others are compared with.
        list_processes: actors by role, as they are at the time.
    """

    def __init__(self, driver: Recorder, list_processes: Callable[[], Processes]):
        self._driver, self._list_processes = driver, list_processes
        self._sampled = 0.0
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def sample_first(self) -> None:
        """Return when all have answered, or could not in time."""
        self._sample(START_ANSWER_S)

    def sample_again(self) -> None:
        """Begin a round if the last one is old enough; call it when the trainer's ranks are idle,
        since one that computes cannot answer."""
        is_over = self._thread is None or not self._thread.is_alive()
        if is_over and self._driver.now() - self._sampled >= SAMPLE_EVERY_S:
            args = (ANSWER_S,)
            self._thread = threading.Thread(
                target=self._sample, args=args, name="process clocks", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Sample no more."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * ANSWER_S)

    def _sample(self, answer_s: float) -> None:
        self._sampled = self._driver.now()
        with self._driver.survive("the clocks of other processes"):
            for role, actors in self._list_processes().items():
                for position, actor in enumerate(actors):
                    if not self._end.is_set():
                        _sample_clock(self._driver, role, position, actor, answer_s)


def _sample_clock(driver: Recorder, role: str, position: int, actor: Any, answer_s: float) -> None:
    def ask() -> float:
        assert driver.target is not None
        asked = actor.__ray_call__.remote(_read_clock, driver.target, role)
        return ray.get(asked, timeout=answer_s)

    try:
        sample = estimate_offset(ask, driver.now, ROUNDS)
    except ray.exceptions.RayError:
        return  # busy, or dead, which others notice
    actor.__ray_call__.remote(_note_clock, role, position, sample)


def flush_processes(actors: list[Any]) -> None:
    """Let these processes write what they have recorded, as far as they answer in time."""
    flushed = [actor.__ray_call__.remote(_flush) for actor in actors]
    if flushed:
        ray.wait(flushed, num_returns=len(flushed), timeout=FLUSH_S)


# ---- in the other process ----------------------------------------------------------------------


def _read_clock(_actor: Any, target: RunTarget, role: str) -> float:
    return open_recorder(target, role).now()


def _note_clock(actor: Any, role: str, position: int, sample: ClockSample) -> None:
    if recorder := find_recorder():
        recorder.add(sample)
        # Also of one that has replaced another since.
        if role == REWARD:
            record_rewards(actor, recorder, position)


def _flush(_actor: Any) -> None:
    if recorder := find_recorder():
        recorder.flush()
