"""Measures what a run has used: CPU time, idle time and memory.

Sources: ``/proc`` and the CPU clocks of processes.

Invariants:
* The usage of a thread or process stays in the sums after it has ended, as far as a measurement or
  its parent has seen it.
* While something of the run computes or waits for a CPU, the run is not idle: a busy machine makes
  no run idle.
* Waits that overlap hide no idle time. How far those of several threads overlap is not recorded, so
  a second look decides: if no thread is runnable, all were waiting at the same time, and only the
  longest wait counts; if one is, they may have waited one after another, and the sum counts. On
  average this hides no more than the share of time in which a thread was runnable.
* Processes that start and end between two measurements may have waited unseen. While processes come
  and go and one is runnable, the run is not idle.
* ``surely_idle_s`` counts the longest wait in all cases; it decides when a run is given up.
"""

import contextlib
import os
import time

_PROC = "/proc"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Fields of /proc/<pid>/stat after the name, which may contain blanks (proc_pid_stat(5)).
_STATE, _CHILDREN_USER_TICKS, _CHILDREN_SYSTEM_TICKS = 0, 13, 14


class UsageMeter:
    """Measures the processes of one run repeatedly.

    Args:
        start: ``time.monotonic()`` at the start of the run.
        read_turn_seconds: returns the seconds, until the given time, in which it was the run's
            turn: otherwise it waits for another run. By default it always is.

    Attributes:
        cpu_s: CPU seconds of all processes so far.
        idle_s, surely_idle_s, wall_s: seconds in which it was the run's turn.
        memory: resident bytes of all processes together, at the last measurement.
    """

    def __init__(self, start, read_turn_seconds=None):
        self._read_turn_seconds = read_turn_seconds or (lambda now: now - start)
        self.cpu_s = self.idle_s = self.surely_idle_s = self.wall_s = 0.0
        self.memory = 0
        # CPU seconds by process, and seconds of waiting by process and thread.
        self._cpu_seconds, self._wait_seconds = {}, {}

    def measure_processes(self, pids, now):
        """Add what ``pids`` have used up to ``now`` (``time.monotonic()``)."""
        cpu_seconds, wait_seconds, self.memory, reaped = {}, {}, 0, 0.0
        for pid in pids:
            memory, tasks = 0, []
            with contextlib.suppress(OSError):  # the process has ended meanwhile
                cpu_seconds[pid] = _read_cpu_seconds(pid)
                reaped += _read_reaped_seconds(pid)
                tasks = os.listdir(f"{_PROC}/{pid}/task")
            for task in tasks:
                with contextlib.suppress(OSError, ValueError, IndexError):
                    with open(f"{_PROC}/{pid}/task/{task}/schedstat") as file:
                        wait_seconds[pid, task] = int(file.read().split()[1]) / 1e9
                    # A main thread that has ended before the others shows no memory, so it is read
                    # from the first thread that shows any.
                    if not memory:
                        with open(f"{_PROC}/{pid}/task/{task}/statm") as file:
                            memory = int(file.read().split()[1]) * _PAGE_BYTES
            self.memory += memory
        computed = sum(_compute_increases(cpu_seconds, self._cpu_seconds))
        # The parent of a process that has ended between two measurements knows its time.
        computed = max(computed, sum(cpu_seconds.values()) + reaped - self.cpu_s)
        waits = _compute_increases(wait_seconds, self._wait_seconds)
        has_changed = cpu_seconds.keys() != self._cpu_seconds.keys()
        self._cpu_seconds, self._wait_seconds = cpu_seconds, wait_seconds
        self.cpu_s += computed
        turn = self._read_turn_seconds(now)
        elapsed, self.wall_s = turn - self.wall_s, turn
        waited, longest = sum(waits), max(waits, default=0.0)
        if has_changed or waited > longest:
            if _is_quiet(cpu_seconds):
                waited = longest
            elif has_changed:
                waited = elapsed
        self.idle_s += max(0.0, elapsed - computed - waited)
        self.surely_idle_s += max(0.0, elapsed - computed - longest)


def _read_cpu_seconds(pid):
    """Return the CPU seconds of a process, which include its ended threads."""
    # Its CPU clock (CPUCLOCK_SCHED, posix-timers_types.h).
    return time.clock_gettime(~pid << 3 | 2)


def _read_reaped_seconds(pid):
    """Return the CPU seconds of the children for which a process has waited."""
    fields = _read_stat_fields(f"{_PROC}/{pid}/stat")
    ticks = int(fields[_CHILDREN_USER_TICKS]) + int(fields[_CHILDREN_SYSTEM_TICKS])
    return ticks / _TICKS_PER_S


def _read_stat_fields(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def _is_quiet(cpu_seconds):
    """Whether no thread is runnable, and none has run since ``cpu_seconds`` were read.

    The second condition finds threads that wake each other in turn while they are looked at.
    """
    for pid, seconds in cpu_seconds.items():
        with contextlib.suppress(OSError, IndexError):  # the process has ended meanwhile
            for task in os.listdir(f"{_PROC}/{pid}/task"):
                if _read_stat_fields(f"{_PROC}/{pid}/task/{task}/stat")[_STATE] == "R":
                    return False
            if _read_cpu_seconds(pid) != seconds:
                return False
    return True


def _compute_increases(now, before):
    # A smaller value means that the process id is in use again: then it counts from zero.
    return [
        value - before.get(key, 0.0) if value >= before.get(key, 0.0) else value
        for key, value in now.items()
    ]
