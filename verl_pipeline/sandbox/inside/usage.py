"""What a run has used so far, from ``/proc`` and processors' clocks: computing, waiting for a
processor, memory.

Invariants:
* What a thread or process has used stays in the sum when it has ended; what ended between two looks
  unseen is missing.
* Time in which something of the run computed or waited for a processor is not idle: a busy machine
  makes no run idle.
* Waiting is summed over all threads, so that many which wait a little at once can hide idle time;
  what is idle for sure is known as well, and decides when a run is given up.
"""

import contextlib
import os
import time

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Meter:
    """Looks at the processes of one run, again and again.

    Attributes:
        cpu_s: of all its processes so far.
        idle_s, surely_idle_s, wall_s: seconds since ``start``; the second counts one thread's
            longest wait a look only.
        memory: resident bytes at the last look, of all processes together.
    """

    def __init__(self, start):
        self.start = self.last = start
        self.cpu_s = self.idle_s = self.surely_idle_s = self.wall_s = 0.0
        self.memory = 0
        self._cpu, self._delay = {}, {}

    def look(self, pids, now):
        """Take account of ``pids`` at ``now`` (``time.monotonic()``)."""
        cpu, delay, self.memory = {}, {}, 0
        for pid in pids:
            memory, tasks = 0, []
            with contextlib.suppress(OSError):  # it has ended meanwhile
                cpu[pid] = time.clock_gettime(_clock_of(pid))
                tasks = os.listdir(f"/proc/{pid}/task")
            for task in tasks:
                with contextlib.suppress(OSError, ValueError, IndexError):
                    with open(f"/proc/{pid}/task/{task}/schedstat") as file:
                        delay[pid, task] = int(file.read().split()[1]) / 1e9
                    if not memory:  # a leader that has ended before its threads has none to show
                        with open(f"/proc/{pid}/task/{task}/statm") as file:
                            memory = int(file.read().split()[1]) * _PAGE
            self.memory += memory
        computed = sum(_increases(cpu, self._cpu))
        waits = _increases(delay, self._delay)
        self._cpu, self._delay = cpu, delay
        self.cpu_s += computed
        self.idle_s += max(0.0, now - self.last - computed - sum(waits))
        self.surely_idle_s += max(0.0, now - self.last - computed - max(waits, default=0.0))
        self.last, self.wall_s = now, now - self.start


def _clock_of(pid):
    """CPU clock of a process: all its threads, ended ones included (``CPUCLOCK_SCHED``,
    posix-timers_types.h).
    """
    return ~pid << 3 | 2


def _increases(now, before):
    # A process id that is in use again counts from zero.
    return [
        value - before.get(key, 0.0) if value >= before.get(key, 0.0) else value
        for key, value in now.items()
    ]
