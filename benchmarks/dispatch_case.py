"""One case of :mod:`benchmarks.dispatch`: the dispatcher at work, without engines.

``python benchmarks/dispatch_case.py '{...}'`` takes one JSON argument and writes one JSON object to
the file that the argument names as ``output``. It imports ``verl_pipeline`` from ``PYTHONPATH``, so
that another checkout can be measured by the same script.

Invariants:
* The dispatcher, its book and the agent loops' client are the real ones, in Ray processes as in a
  run; a trajectory does with them what an agent loop of one turn does. Replicas only sleep.
* Times of different processes are of one clock: all run on this machine.
"""

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "VERL_LOGGING_LEVEL": "WARNING"}

import numpy as np
import ray
from dispatch_actors import (  # type: ignore[import-not-found]
    MODE,
    STALENESS,
    LoopWorker,
    start_actors,
    start_pool,
)

from verl_pipeline.trainer.dispatch import DispatchBook
from verl_pipeline.trainer.schedule import find_window

# What no run waits for, in seconds.
FOREVER = 1e6


def match_slots(
    ends: dict[int, list[float]], arrivals: dict[int, list[float]], slots: int
) -> list[tuple[float, float]]:
    """Each end on a full replica, and the request that takes the slot.

    Args:
        ends, arrivals: by replica, all since it was empty.
    """
    return [
        pair
        for replica, times in ends.items()
        for pair in zip(sorted(times), sorted(arrivals[replica])[slots:], strict=False)
    ]


def _count_open(dispatcher: Any) -> int:
    return dispatcher._book.open_count


def measure_latency(case: dict[str, Any], workers: list[Any]) -> dict[str, Any]:
    """Seconds in which a slot is empty, while thousands wait and every slot is full."""
    slots, count = case["running"] // case["replicas"], case["trajectories"]
    generator = np.random.default_rng(case["seed"])
    mean, sigma = case["mean_s"], 0.7
    seconds = generator.lognormal(np.log(mean) - sigma**2 / 2, sigma, count)
    with start_pool(case, workers, slots) as pool:
        pool.submit(1, seconds.tolist())
        # Until then the dispatcher takes the batch in.
        pool.wait(lambda: pool.ask(_count_open) == case["running"])
        pool.wait(lambda: pool.count_known() >= pool.count_unfinished())
        before, start = pool.read_usage(), time.perf_counter()
        time.sleep(case["latency_s"])
        after, end = pool.read_usage(), time.perf_counter()
        waiting = pool.count_known() - case["running"]
        ends: dict[int, list[float]] = defaultdict(list)
        for taken in ray.get([worker.take_ends.remote() for worker in workers]):
            for server, times in taken.items():
                ends[int(server.split()[-1])] += times
        arrivals: dict[int, list[float]] = {}
        for listed in ray.get([host.take_arrivals.remote() for host in pool.hosts]):
            arrivals |= listed
    latencies = [
        came - ended for ended, came in match_slots(ends, arrivals, slots) if start < ended < end
    ]
    points = (50, 95, 99)
    return {
        "slots_refilled_per_s": len(latencies) / (end - start),
        "waiting_at_the_end": waiting,
        **{f"p{point}_ms": float(np.percentile(latencies, point)) * 1e3 for point in points},
        "dispatcher_cpu_share": (after["dispatcher_cpu_s"] - before["dispatcher_cpu_s"])
        / (end - start),
    }


def measure_intake(case: dict[str, Any], workers: list[Any]) -> list[dict[str, Any]]:
    """Batches that come one after the other, of which none ends.

    Returns:
        By batch, seconds until the dispatcher has all of it, and what it and its clients use.
    """
    rows, count = [], case["trajectories"]
    with start_pool(case, workers, case["slots"]) as pool:
        before = pool.read_usage()
        for batch in range(1, case["batches"] + 1):
            start = time.perf_counter()
            pool.submit(batch, [FOREVER] * count)
            pool.wait_until_known(batch * count)
            seconds = time.perf_counter() - start
            after = pool.read_usage()
            rows.append({"batch": batch, "intake_s": seconds, **_subtract(after, before)})
            before = after
    return rows


def measure_step(case: dict[str, Any], workers: list[Any]) -> dict[str, Any]:
    """A whole batch through replicas that take no time: what a step costs at least."""
    with start_pool(case, workers, case["slots"]) as pool:
        before, start = pool.read_usage(), time.perf_counter()
        pool.submit(1, [0.0] * case["trajectories"])
        pool.wait(lambda: pool.count_unfinished() == 0)
        seconds = time.perf_counter() - start
        return {"step_s": seconds, **_subtract(pool.read_usage(), before)}


def _subtract(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in after}


def measure_book(case: dict[str, Any], _workers: list[Any]) -> dict[str, float]:
    """Microseconds of the book alone for each event, with all batches waiting."""
    names = [f"replica {number}" for number in range(case["replicas"])]
    book = DispatchBook(dict.fromkeys(names, case["slots"]), MODE)
    book.publish(0)
    for load in list(book.take_actions()):
        book.finish_load(load.replica)
    count, batches = case["trajectories"], case["batches"]
    arrivals = [
        (f"b{batch}p{row}", batch, find_window(batch, STALENESS))
        for batch in range(1, batches + 1)
        for row in range(count)
    ]
    start = time.perf_counter()
    for arrival in arrivals:
        book.arrive(*arrival)
    arrived = time.perf_counter()
    begun: list[Any] = list(book.take_actions())
    filled = time.perf_counter()
    for grant in begun:
        book.end(grant.trajectory)
        list(book.take_actions())
    ended = time.perf_counter()
    return {
        "arrive_us": (arrived - start) / len(arrivals) * 1e6,
        "begin_us": (filled - arrived) / len(begun) * 1e6,
        "end_and_begin_us": (ended - filled) / len(begun) * 1e6,
    }


MEASUREMENTS: dict[str, Callable[[dict[str, Any], list[Any]], Any]] = {
    "book": measure_book,
    "latency": measure_latency,
    "step": measure_step,
    "intake": measure_intake,
}


def main(case: dict[str, Any]) -> None:
    """Measure everything ``case["repeats"]`` times; write what was seen after each measurement."""
    ray.init("local", num_cpus=16, include_dashboard=False, log_to_driver=False)
    results: dict[str, list[Any]] = {name: [] for name in MEASUREMENTS}
    try:
        workers = start_actors(LoopWorker, case["clients"])
        for _ in range(case["repeats"]):
            for name, measure in MEASUREMENTS.items():
                results[name].append(measure(case, workers))
                Path(case["output"]).write_text(json.dumps(results))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
