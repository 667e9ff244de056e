"""Measures what a run has used: CPU time, waiting for a CPU, and memory.

Sources: ``/proc`` and the CPU clocks of processes.

Invariants:
* The usage of a thread or process stays in the sums after it has ended; only usage between the last
  measurement and the end is missing.
* While something of the run computes or waits for a CPU, the run is not idle: a busy machine makes
  no run idle.
* Waiting is summed over all threads, so that many threads that wait briefly at once can hide idle
  time. ``surely_idle_s`` is a lower bound of idle time that cannot be hidden this way; it decides
  when a run is given up.
"""

import contextlib
import os
import time

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class UsageMeter:
    """Measures the processes of one run repeatedly.

    Attributes:
        cpu_s: CPU seconds of all processes so far.
        idle_s, surely_idle_s, wall_s: seconds since ``start``; for ``surely_idle_s`` only the
            longest wait of one thread counts in each interval.
        memory: resident bytes of all processes together, at the last measurement.
    """

    def __init__(self, start, proc="/proc"):
        self._proc = proc
        self.start = self.last = start
        self.cpu_s = self.idle_s = self.surely_idle_s = self.wall_s = 0.0
        self.memory = 0
        # CPU seconds by process, and seconds of waiting by process and thread.
        self._cpu_seconds, self._wait_seconds = {}, {}

    def measure_processes(self, pids, now):
        """Add what ``pids`` have used up to ``now`` (``time.monotonic()``)."""
        cpu_seconds, wait_seconds, self.memory = {}, {}, 0
        for pid in pids:
            memory, tasks = 0, []
            with contextlib.suppress(OSError):  # the process has ended meanwhile
                cpu_seconds[pid] = time.clock_gettime(_make_cpu_clock_id(pid))
                tasks = os.listdir(f"{self._proc}/{pid}/task")
            for task in tasks:
                with contextlib.suppress(OSError, ValueError, IndexError):
                    with open(f"{self._proc}/{pid}/task/{task}/schedstat") as file:
                        wait_seconds[pid, task] = int(file.read().split()[1]) / 1e9
                    # A main thread that has ended before the others shows no memory, so it is read
                    # from the first thread that shows any.
                    if not memory:
                        with open(f"{self._proc}/{pid}/task/{task}/statm") as file:
                            memory = int(file.read().split()[1]) * _PAGE_BYTES
            self.memory += memory
        computed = sum(_compute_increases(cpu_seconds, self._cpu_seconds))
        waits = _compute_increases(wait_seconds, self._wait_seconds)
        self._cpu_seconds, self._wait_seconds = cpu_seconds, wait_seconds
        self.cpu_s += computed
        self.idle_s += max(0.0, now - self.last - computed - sum(waits))
        self.surely_idle_s += max(0.0, now - self.last - computed - max(waits, default=0.0))
        self.last, self.wall_s = now, now - self.start


def _make_cpu_clock_id(pid):
    """Return the id of a process's CPU clock, which includes its ended threads.

    (``CPUCLOCK_SCHED``, posix-timers_types.h)
    """
    return ~pid << 3 | 2


def _compute_increases(now, before):
    # A smaller value means that the process id is in use again: then it counts from zero.
    return [
        value - before.get(key, 0.0) if value >= before.get(key, 0.0) else value
        for key, value in now.items()
    ]
