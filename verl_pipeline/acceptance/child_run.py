"""The acceptance run as a child process, with its progress.

Invariants:
* The run is asked to end before it is killed, so that it cleans up after itself, whether this
  process is interrupted or the run is late.
* Its processes are gone when :func:`train` returns or raises.
"""

import contextlib
import signal
import subprocess
import time
from pathlib import Path

import psutil
from rich.console import Console

from verl_pipeline.acceptance.outcome import Outcome
from verl_pipeline.acceptance.plan import Plan
from verl_pipeline.fork_server.client import StartedProcess
from verl_pipeline.progress import make_progress_bars
from verl_pipeline.testing import runs

# A first start on GPUs compiles kernels; on two idle CPU cores the run takes a minute.
DEADLINE_S = 1800.0
# What the clean-up of verl_pipeline.main takes at most, with a margin.
_END_S = 40.0
_POLL_S = 0.3


def train(
    folder: Path, words: list[str], plan: Plan, console: Console, deadline_s: float = DEADLINE_S
) -> Outcome:
    """Train in a child process, in the current folder.

    Args:
        folder: what the run records, and its log, go there.
        words: what follows ``python -m verl_pipeline.main``.
    """
    start = time.monotonic()
    process = runs.start_run(folder, words, folder=Path.cwd())
    seen: dict[int, psutil.Process] = {}
    is_late = False
    try:
        with make_progress_bars(console) as progress:
            task = progress.add_task("starting Ray, trainer and rollout servers", total=plan.steps)
            while process.poll() is None and not is_late:
                seen.update({child.pid: child for child in runs.list_descendants(process.pid)})
                done = len(runs.read_metrics(folder))
                if done:
                    next_step = min(done + 1, plan.steps)
                    description = f"training step {next_step}" if done < plan.steps else "ending"
                    progress.update(task, completed=done, description=description)
                is_late = time.monotonic() - start > deadline_s
                time.sleep(_POLL_S)
            if is_late:
                progress.update(task, description="too late: ending the run")
                _end(process)
    except BaseException:  # Ctrl-C: the run has its own session and would go on
        _end(process)
        runs.collect_run(folder, process, list(seen.values()))
        raise
    seconds = time.monotonic() - start
    return Outcome(runs.collect_run(folder, process, list(seen.values())), seconds, is_late)


def _end(process: StartedProcess) -> None:
    """Have a run clean up and end; what does not is killed by ``collect_run``."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
