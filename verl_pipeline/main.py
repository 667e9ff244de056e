"""``python -m verl_pipeline.main <verl overrides>``: verl's entry point with pipelining chosen.

Invariants:
* Settings that cannot work end the command with a line for each and exit code 2, before Ray starts;
  those that only Ray's cluster or the data set can refuse, before a model is loaded.
* However the run ends (success, error, Ctrl-C, SIGTERM, SIGHUP), every process it started has
  ended when this one does, and the last checkpoint is intact. Waiting for processes to end takes at
  most :data:`SHUTDOWN_S` seconds.
* A Ray cluster that somebody else started goes on, with all that is not of this run; to end there
  what is takes at most as long again and ``cluster_end.START_S``.
* With ``restarts`` this process becomes :mod:`verl_pipeline.restarts`, before verl is imported.
"""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import psutil
from omegaconf import DictConfig

from verl_pipeline import (
    plugin,  # noqa: F401  # first of all: on CPUs, other processes begin to import meanwhile
)
from verl_pipeline.entry_checks import CHECK_ONLY, refuse
from verl_pipeline.fork_server.client import find_server, stop_server
from verl_pipeline.outputs.errors import OutputError
from verl_pipeline.processes import handle_end_signals
from verl_pipeline.restarts import become_supervisor, is_attempt, report_cause
from verl_pipeline.run_end import RunEnd, read_name, remove_sockets
from verl_pipeline.standard_streams import guard_streams
from verl_pipeline.trainer.pipeline_config import ConfigError, load_pipeline_config
from verl_pipeline.verl_adapter.cpu.environment import remove_sockets_folder

SHUTDOWN_S = 25.0
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def end_run(runners: Sequence[Any]) -> None:
    """End vLLM's engines, then Ray, then whatever is left below this process.

    On a cluster that somebody else started, end what this run started on its nodes, and leave.

    Args:
        runners: the run's task runners.
    """
    import ray

    own = RunEnd(_list_descendants)
    own.end_engines(SHUTDOWN_S / 3)
    if ray.is_initialized():
        if not any(read_name(process) == "raylet" for process in own.processes):
            from verl_pipeline.verl_adapter.placement.cluster_end import end_job

            end_job(runners, SHUTDOWN_S)
        ray.shutdown()
    own.end_rest(SHUTDOWN_S / 3, SHUTDOWN_S / 3)
    stop_server()
    remove_sockets()


def _list_descendants() -> list[psutil.Process]:
    """All processes below this one, but the fork server, which has to outlive its forks."""
    server = find_server()
    below = psutil.Process().children(recursive=True)
    return [process for process in below if server is None or process != server.process]


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
    _supervise_if_asked(config)
    # verl takes seconds to import: a wrong override on the command line fails before that.
    from verl_pipeline.verl_adapter.checks.check_list import check_run
    from verl_pipeline.verl_adapter.entry.run_entry import WatchedStart, choose_device, run_training
    from verl_pipeline.verl_adapter.placement.ray_cluster import NotStarted

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
    except (NotStarted, OutputError) as error:
        print(f"error: {error}", file=sys.stderr)
        report_cause(error)
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        print(
            "interrupted: shutting down; the last checkpoint is intact, and the same command "
            "resumes from it",
            file=sys.stderr,
        )
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        report_cause(error)
        raise
    finally:
        _ignore_signals()
        end_run(WatchedStart.kept_runners)


def _supervise_if_asked(config: DictConfig) -> None:
    """Become the supervisor of the attempts, if there may be several and this is none."""
    if is_attempt():
        return
    try:
        restarts = load_pipeline_config(config).restarts
    except ConfigError as error:
        refuse(*error.lines)
    if restarts:
        stop_server()
        remove_sockets_folder()
        become_supervisor(restarts, Path(config.trainer.default_local_dir), sys.argv[1:])


def translate_options(argv: list[str]) -> list[str]:
    """``--check`` as the override that stands for it; Hydra owns the rest of the command line."""
    return [CHECK_ONLY if word == "--check" else word for word in argv]


if __name__ == "__main__":
    sys.argv = translate_options(sys.argv)
    with guard_streams():
        main()
