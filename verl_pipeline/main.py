"""``python -m verl_pipeline.main <verl overrides>``: verl's entry point with pipelining chosen.

Invariants:
* Settings that cannot work end the command with a line for each and exit code 2, before Ray starts;
  those that only Ray's cluster or the data set can refuse, before a model is loaded.
* However the run ends (success, error, Ctrl-C, SIGTERM, SIGHUP), every process it started has
  ended when this one does, and the last checkpoint is intact. Waiting for processes to end takes at
  most :data:`SHUTDOWN_S` seconds.
"""

import contextlib
import os
import signal
import stat
import sys
import tempfile
from pathlib import Path

import hydra
import psutil
from omegaconf import DictConfig

from verl_pipeline import (
    plugin,  # noqa: F401  # first of all: on CPUs, other processes begin to import meanwhile
    shared_memory,
)
from verl_pipeline.entry_checks import CHECK_ONLY, refuse
from verl_pipeline.fork_server.client import find_server, stop_server
from verl_pipeline.processes import handle_end_signals, wait_until_ended
from verl_pipeline.standard_streams import guard_streams
from verl_pipeline.trainer.pipeline_config import ConfigError
from verl_pipeline.verl_adapter.leftovers import ENGINE_TITLE, SOCKET_NAME

SHUTDOWN_S = 25.0
EXIT_NOT_STARTED = 1
EXIT_INTERRUPTED = 130


def end_run() -> None:
    """End vLLM's engines, then Ray, then whatever is left below this process, each by process id.

    Ray kills its actors outright: an engine that still runs by then would leave its shared memory
    behind. What a killed engine has left is removed afterwards.
    """
    import ray

    descendants = _list_descendants()
    segments = {
        path for process in descendants for path in shared_memory.find_mapped_segments(process)
    }
    engines = [process for process in descendants if _read_name(process).startswith(ENGINE_TITLE)]
    _send_signal(engines, signal.SIGTERM)
    wait_until_ended(engines, SHUTDOWN_S / 3)
    if ray.is_initialized():
        ray.shutdown()
    descendants = list({*descendants, *_list_descendants()})
    alive = wait_until_ended(descendants, SHUTDOWN_S / 3)
    _send_signal(alive, signal.SIGTERM)
    alive = wait_until_ended(alive, SHUTDOWN_S / 6)
    _send_signal(alive, signal.SIGKILL)
    wait_until_ended(alive, SHUTDOWN_S / 6)
    for path in segments:
        path.unlink(missing_ok=True)
    stop_server()
    _remove_sockets()


def _list_descendants() -> list[psutil.Process]:
    """All processes below this one, but the fork server, which has to outlive its forks."""
    server = find_server()
    below = psutil.Process().children(recursive=True)
    return [process for process in below if server is None or process != server.process]


def _send_signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _read_name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _remove_sockets() -> None:
    """Remove this user's sockets of engines that have no listener; neither verl nor vLLM does."""
    found = [
        path for path in Path(tempfile.gettempdir()).iterdir() if SOCKET_NAME.fullmatch(path.name)
    ]
    # Read afterwards: a socket that another run makes meanwhile is not among the found ones.
    bound = Path("/proc/net/unix").read_text() if Path("/proc/net/unix").exists() else ""
    for path in found:
        if str(path) in bound:
            continue
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            if stat.S_ISSOCK(status.st_mode) and status.st_uid == os.getuid():
                path.unlink()


def _raise_interrupt(_number: int, _frame) -> None:
    """Once: a second signal must not interrupt the clean-up."""
    _ignore_signals()
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _handle_signals() -> None:
    handle_end_signals(_raise_interrupt)


@hydra.main(config_path="config", config_name="one_off_pipeline", version_base=None)
def main(config: DictConfig) -> None:
    """Check, train, clean up; :mod:`verl_pipeline.entry_checks` has looked at the overrides."""
    # verl takes seconds to import: a wrong override on the command line fails before that.
    from verl_pipeline.verl_adapter.check_list import check_run
    from verl_pipeline.verl_adapter.ray_cluster import NotStarted
    from verl_pipeline.verl_adapter.run_entry import choose_device, run_training

    choose_device(config)
    try:
        check_run(config)
    except ConfigError as error:
        refuse(*error.lines)
    _handle_signals()
    try:
        # ray.init installs a SIGTERM handler that would end this process without a clean-up.
        run_training(config, on_start=_handle_signals)
    except ConfigError as error:
        refuse(*error.lines)
    except NotStarted as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_NOT_STARTED)
    except KeyboardInterrupt:
        print(
            "interrupted: shutting down; the last checkpoint is intact, and the same command "
            "resumes from it",
            file=sys.stderr,
        )
        sys.exit(EXIT_INTERRUPTED)
    finally:
        _ignore_signals()
        end_run()


def translate_options(argv: list[str]) -> list[str]:
    """``--check`` as the override that stands for it; Hydra owns the rest of the command line."""
    return [CHECK_ONLY if word == "--check" else word for word in argv]


if __name__ == "__main__":
    sys.argv = translate_options(sys.argv)
    with guard_streams():
        main()
