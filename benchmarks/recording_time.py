"""Times what a run spends on recording itself, inside all of its processes.

Loaded as :mod:`benchmarks.spans` is, beside it. Each call of the functions below counts once, with
its processor time (of its thread) and its wall-clock time; a call inside another one belongs to the
outer one. Sums leave a process about twice a second as a span ``recording``.

Invariant: timed functions behave as before, also when they raise.
"""

import functools
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from wrapt import register_post_import_hook

from benchmarks.spans import SPANS_VARIABLE, make_hook, write_span

NAME = "recording"
WRITE_EVERY_S = 0.5
_TELEMETRY = "verl_pipeline.verl_adapter.telemetry"
# Part -> (module, attribute).
PARTS = {
    "submitted prompts": (f"{_TELEMETRY}.agent_loop_calls", "RecordedManager._record"),
    "trained trajectories": (f"{_TELEMETRY}.trainers", "_RecordingTrainer._add_moments"),
    "texts": (f"{_TELEMETRY}.trainers", "read_texts"),
    "step line": (f"{_TELEMETRY}.trainers", "_RecordingTrainer._complete_step"),
    "replicas read": (f"{_TELEMETRY}.replica_gauges", "ReplicaGauges._read_all"),
    # In the replicas' servers.
    "replicas' pages": ("prometheus_fastapi_instrumentator.instrumentation", "generate_latest"),
    # Of agent loops and ranks. Their modules import verl, and with it this one, before they have
    # anything to be timed.
    "other records": ("verl_pipeline.telemetry.recorder", "Recorder.add"),
    "writing": ("verl_pipeline.telemetry.writer", "RecordWriter.flush"),
}
# On the driver's own thread: the trainer waits for them.
AWAITED = ("submitted prompts", "trained trajectories", "texts", "step line")


class PartTimes:
    """Sums of a process since they were last written; ``cpu`` and ``wall`` seconds by part."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = threading.local()
        self._cpu: dict[str, float] = defaultdict(float)
        self._wall: dict[str, float] = defaultdict(float)
        self._written = time.monotonic()

    def time_function(self, part: str, function: Callable) -> Callable:
        """The function, timed unless it is called inside another timed one."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if getattr(self._inside, "part", None):
                return function(*args, **kwargs)
            self._inside.part = part
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._inside.part = None
                self._add(part, time.thread_time() - cpu, time.perf_counter() - wall)

        return timed

    def _add(self, part: str, cpu: float, wall: float) -> None:
        with self._lock:
            self._cpu[part] += cpu
            self._wall[part] += wall
            now = time.monotonic()
            if now - self._written < WRITE_EVERY_S:
                return
            self._written = now
            taken = dict(self._cpu), dict(self._wall)
            self._cpu.clear()
            self._wall.clear()
        write_span(NAME, time.time(), 0.0, cpu=taken[0], wall=taken[1])


def sum_recording(spans: list[dict]) -> dict[str, Any]:
    """Return seconds a step by part, of all steps but the first.

    Args:
        spans: of a run.

    Returns:
        ``cpu``: of all processes; ``wall``: of what is awaited.
    """
    ends = [span["start"] + span["seconds"] for span in spans if span["name"] == "step ends"]
    cpu: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    wall: dict[str, float] = dict.fromkeys(AWAITED, 0.0)
    for span in spans:
        if span["name"] == NAME and min(ends) <= span["start"] < max(ends):
            for sums, found in ((cpu, span["cpu"]), (wall, span["wall"])):
                for part in sums:
                    sums[part] += found.get(part, 0.0) / (len(ends) - 1)
    return {"cpu": cpu, "wall": wall}


if SPANS_VARIABLE in os.environ:
    _times = PartTimes()
    for _part, (_module, _attribute) in PARTS.items():
        register_post_import_hook(make_hook(_part, _attribute, _times.time_function), _module)
