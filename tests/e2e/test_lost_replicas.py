"""Processes that are killed or stopped while a run samples: it goes on to its end, with the batches
of a run that lost none. Rollout replicas past the barrier, agent loop workers in every mode.
"""

import contextlib
import signal
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.e2e.test_past_the_barrier import (
    TRAJECTORIES,
    check_run,
    list_violations,
    make_overrides,
)
from tests.helpers.training_run import check_clean, tail
from verl_pipeline.run_end import read_name
from verl_pipeline.testing import runs
from verl_pipeline.trainer.schedule import DRAINED, IN_FLIGHT, ROLLING

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]
PIPELINE = "+trainer.v1.one_off_pipeline"
ENGINE, WORKER = "VLLM::Engine", "VLLM::Worker"
SERVER, LOOP = "ray::VersionedServer", "ray::RecordingLongTail"


def limit_memory(process):
    """It can map nothing more: as when the memory of its machine is used up."""
    process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms,) * 2)


def limit_files(process):
    """It can open nothing more."""
    numbers = [int(path.name) for path in Path(f"/proc/{process.pid}/fd").iterdir()]
    lowest = min(set(range(max(numbers) + 2)) - set(numbers))
    process.rlimit(psutil.RLIMIT_NOFILE, (lowest,) * 2)


class Accident:
    """Sends one process of a replica a signal, or does something else to it, once so many steps
    are done.
    """

    def __init__(self, directory, title, harm, after):
        self._directory, self._title, self._harm = directory, title, harm
        self._after, self.victim = after, None

    def __call__(self, processes):
        if self.victim is not None or len(runs.read_metrics(self._directory)) < self._after:
            return
        found = [one for one in processes if read_name(one).startswith(self._title[:15])]
        assert len(found) == (1 if self._title == LOOP else 2), list(map(read_name, processes))
        self.victim = found[0]
        if callable(self._harm):
            self._harm(self.victim)
        else:
            self.victim.send_signal(self._harm)


class SlowDown:
    """Stops all engines but the last of those that the run begins with, most of the time."""

    RUNS_S, STOPS_S = 0.01, 0.09

    def __init__(self):
        self._spared, self._engines, self._end = None, [], threading.Event()
        self._thread = threading.Thread(target=self._slow_down, daemon=True)
        self._thread.start()

    def __call__(self, processes):
        engines = [one for one in processes if read_name(one).startswith(ENGINE)]
        if self._spared is None and len(engines) == 2:
            self._spared = engines[-1]
        if self._spared is not None:
            self._engines = [one for one in engines if one != self._spared]

    def _slow_down(self):
        while not self._end.is_set():
            for number, seconds in ((signal.SIGSTOP, self.STOPS_S), (signal.SIGCONT, self.RUNS_S)):
                for engine in self._engines:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        engine.send_signal(number)
                self._end.wait(seconds)

    def close(self):
        self._end.set()
        self._thread.join()


def run_with_accident(directory, overrides, title, harm, after=2):
    accident = Accident(directory, title, harm, after)
    run = runs.run_training(directory, overrides, module=runs.STOCK, watch=accident)
    assert accident.victim is not None
    return run


def check_loss(run, lost=1):
    """The run tells of its loss, and counts it."""
    assert run.output.count("trajectories are sampled again by the 1 of 2 replicas") == lost
    assert sum(step["pipeline/replicas/lost"] for step in run.metrics.values()) == lost
    assert run.metrics[max(run.metrics)]["pipeline/replicas/living"] == 2 - lost


@pytest.mark.parametrize(
    "mode, staleness, title, harm, more",
    [
        (ROLLING, 2, ENGINE, signal.SIGKILL, []),
        (ROLLING, 2, SERVER, signal.SIGKILL, ["trainer.test_freq=4"]),
        (IN_FLIGHT, 2, ENGINE, signal.SIGKILL, []),
        (ROLLING, 2, ENGINE, signal.SIGSTOP, [f"{PIPELINE}.deadlines.token_s=10"]),
        (ROLLING, 2, WORKER, limit_memory, []),
        (ROLLING, 2, WORKER, limit_files, []),
    ],
)
def test_the_run_goes_on_with_the_others(
    sync_run, runs_directory, mode, staleness, title, harm, more
):
    name = getattr(harm, "name", None) or harm.__name__
    directory = runs_directory / f"lost-{mode}-{title[:4]}-{name}"
    overrides = [
        *make_overrides(directory, mode, staleness, replicas=2),
        f"{PIPELINE}.deadlines.health_check_every_s=1",
        *more,
    ]
    run = run_with_accident(directory, overrides, title, harm)
    check_run(run, sync_run, mode, staleness)
    check_loss(run)
    check_clean(run)


@pytest.mark.parametrize("mode", [DRAINED, ROLLING])
def test_a_dead_agent_loop_worker_is_replaced(sync_run, runs_directory, mode):
    directory = runs_directory / f"lost-loops-{mode}"
    overrides = make_overrides(directory, mode, 1, replicas=2)
    run = run_with_accident(directory, overrides, LOOP, signal.SIGKILL)
    assert run.returncode == 0, tail(run)
    assert " unfinished prompts again" in run.output
    # A trajectory may have been recorded by the dead worker, too; the batch holds it once.
    latest = {(r["step"], r["index"], r["session"]): r for r in run.trajectories}
    once = replace(run, trajectories=list(latest.values()))
    assert list_violations(once, mode, 1) == []
    assert once.list_batches() == sync_run.list_batches()
    for metrics in run.metrics.values():
        assert metrics["filters/before/trajectories"] == TRAJECTORIES
        assert metrics["pipeline/infrastructure/share"] == 0
    check_clean(run)


@pytest.mark.parametrize("mode", [ROLLING, IN_FLIGHT])
def test_a_lost_replica_starts_again_and_takes_part(runs_directory, mode):
    directory = runs_directory / f"rejoined-{mode}"
    overrides = [
        *make_overrides(directory, mode, 2, replicas=2),
        f"{PIPELINE}.deadlines.health_check_every_s=1",
        # The engine takes as long to start as these steps, or less.
        "trainer.total_epochs=100000",
        "trainer.total_training_steps=60",
    ]
    run = run_with_accident(directory, overrides, ENGINE, signal.SIGKILL)
    assert run.returncode == 0, tail(run)
    assert " has taken the place of the one lost, " in run.output
    assert list_violations(run, mode, 2) == []
    back = [step for step in run.metrics if run.metrics[step]["pipeline/replicas/rejoined"]]
    assert len(back) == 1
    last = run.metrics[max(run.metrics)]
    assert last["pipeline/replicas/living"] == 2
    check_clean(run)


def test_a_slow_replica_is_taken_out_and_stays_out_if_it_is_slow_again(runs_directory):
    # The engine starts again and is watched for as long as these steps take, or less.
    directory, steps = runs_directory / "slow", 120
    overrides = [
        *make_overrides(directory, ROLLING, 2, replicas=2),
        f"{PIPELINE}.deadlines.health_check_every_s=1",
        f"{PIPELINE}.deadlines.slow_s=15",
        f"{PIPELINE}.slow_factor=3",
        "trainer.total_epochs=100000",
        f"trainer.total_training_steps={steps}",
    ]
    slow_down = SlowDown()
    try:
        run = runs.run_training(directory, overrides, module=runs.STOCK, watch=slow_down)
    finally:
        slow_down.close()
    assert run.returncode == 0, tail(run)
    assert "times slower than the others at the same load" in run.output, tail(run)
    assert list_violations(run, ROLLING, 2) == []
    assert len(run.list_batches()) == steps
    lost = [step for step in run.metrics if run.metrics[step]["pipeline/replicas/lost"]]
    back = [step for step in run.metrics if run.metrics[step]["pipeline/replicas/rejoined"]]
    assert len(back) == 1 and len(lost) == 2, (lost, back)
    assert run.output.count(" has taken the place of the one lost, ") == 1
    assert "again after its restart: it stays out" in run.output
    assert run.metrics[max(run.metrics)]["pipeline/replicas/living"] == 1
    check_clean(run)


def test_with_fewer_than_asked_for_the_run_ends_by_name(runs_directory):
    directory = runs_directory / "lost-too-many"
    overrides = [
        *make_overrides(directory, ROLLING, 2, replicas=2),
        f"{PIPELINE}.deadlines.health_check_every_s=1",
        f"{PIPELINE}.min_replicas=2",
    ]
    run = run_with_accident(directory, overrides, ENGINE, signal.SIGKILL)
    assert run.returncode not in (0, None)
    assert "1 of 2 replicas are left, fewer than trainer.v1.one_off_pipeline.min_replicas=2" in (
        run.output
    ), tail(run)
    check_clean(run)
