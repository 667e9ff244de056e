"""Waits for an idle machine before a measurement, or says that it is too busy to tell.

Invariant: no measurement starts while other processes use the processors. Work that starts during
a measurement is not noticed; repeats in turns and their spread show it.
"""

import time

import click
import psutil

# Idle engines and Ray's own processes stay below this share of all processors.
QUIET_PERCENT, QUIET_S = 25.0, 3
QUIET_TIMEOUT_S = 90.0


class MachineTooBusy(click.ClickException):
    """Other processes use the processors; a command that lets it pass ends with exit code 1."""


def wait_until_quiet(timeout_s: float = QUIET_TIMEOUT_S) -> None:
    """Wait until the processors have been idle for ``QUIET_S`` seconds.

    Raises:
        MachineTooBusy: they were not within ``timeout_s`` seconds; names the busiest processes.
    """
    quiet, deadline = 0, time.monotonic() + timeout_s
    while quiet < QUIET_S:
        used_percent = psutil.cpu_percent(1.0)
        quiet = quiet + 1 if used_percent < QUIET_PERCENT else 0
        if time.monotonic() > deadline and quiet < QUIET_S:
            raise MachineTooBusy(
                f"too busy to tell: the processors were {used_percent:.0f} % busy after "
                f"{timeout_s:g} s of waiting for less than {QUIET_PERCENT:g} %. "
                f"Busiest: {', '.join(_name_busiest())}. End other work, then run this again."
            )


def _name_busiest(count: int = 3) -> list[str]:
    """The processes that compute now, the busiest first, as ``123 python``."""
    processes = list(psutil.process_iter(["name"]))
    for process in processes:
        _read_percent(process)
    time.sleep(0.5)
    usage = sorted(((_read_percent(p), p.pid, p.info["name"]) for p in processes), reverse=True)
    return [f"{pid} {name}" for percent, pid, name in usage[:count] if percent > 0] or ["unknown"]


def _read_percent(process: psutil.Process) -> float:
    """Percent of one processor since the last call; 0 for a process that has ended."""
    try:
        return float(process.cpu_percent())
    except psutil.Error:
        return 0.0
