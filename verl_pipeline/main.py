"""``python -m verl_pipeline.main <verl overrides>``: verl's entry point with one-off pipelining
chosen.

Invariants:
* A setting that cannot work ends the command with one line and exit code 2, before Ray is started.
* However the run ends (success, error, Ctrl-C, SIGTERM), every process it started has ended when
  this one does, and the last checkpoint is left as it was written. Waiting for processes to end
  takes at most :data:`SHUTDOWN_S` seconds.
"""

import contextlib
import copy
import os
import signal
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import hydra
import psutil
import ray
from omegaconf import DictConfig, OmegaConf
from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config
from verl.utils.device import auto_set_device

from verl_pipeline import shared_memory
from verl_pipeline.plugin import FILTERED_SYNC_MODE, TRAINER_MODE
from verl_pipeline.trainer.checks import check_config, check_mini_batches, check_trainer_mode
from verl_pipeline.trainer.config import (
    ConfigError,
    load_filtered_sync_config,
    load_pipeline_config,
)
from verl_pipeline.trainer.derive import derive
from verl_pipeline.trainer.filtering_buffer import SAMPLER, FilteringReplayBuffer, dropping_filters

SHUTDOWN_S = 25.0
EXIT_BAD_CONFIG = 2
EXIT_INTERRUPTED = 130


def check(config: DictConfig, skip: Collection[str] = ()) -> None:
    """Everything that can be checked before Ray starts.

    Args:
        skip: as in :func:`~verl_pipeline.trainer.checks.check_config`.

    Raises:
        ConfigError: the first setting that cannot work.
    """
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    mode = config.trainer.v1.trainer_mode
    check_trainer_mode(mode, list(TRAINER_REGISTRY))
    if mode == TRAINER_MODE:
        check_config(config, skip)
        derive(copy.deepcopy(config), load_pipeline_config(config))
    elif mode == FILTERED_SYNC_MODE:
        load_filtered_sync_config(config)
        check_mini_batches(config)
    elif (
        OmegaConf.select(config, f"{SAMPLER}.custom_sampler.name") == FilteringReplayBuffer.__name__
    ):
        dropping_filters(mode, OmegaConf.select(config, f"{SAMPLER}.sampler_kwargs"))
        check_mini_batches(config)
    try:
        validate_config(
            config,
            use_reference_policy=need_reference_policy(config),
            use_critic=need_critic(config),
        )
    except (AssertionError, ValueError) as error:
        raise ConfigError(str(error).splitlines()[0]) from error


def shut_down() -> None:
    """End vLLM's engines, then Ray, then whatever is left below this process, each by its process
    id.

    Ray kills its actors outright: an engine that is still there by then would leave its shared
    memory behind. What an engine that was killed has left is removed afterwards.
    """
    descendants = psutil.Process().children(recursive=True)
    segments = {
        path for process in descendants for path in shared_memory.find_mapped_segments(process)
    }
    engines = [process for process in descendants if _name(process).startswith("VLLM::Engine")]
    _signal(engines, signal.SIGTERM)
    psutil.wait_procs(engines, timeout=SHUTDOWN_S / 3)
    if ray.is_initialized():
        ray.shutdown()
    descendants = list({*descendants, *psutil.Process().children(recursive=True)})
    _gone, alive = psutil.wait_procs(descendants, timeout=SHUTDOWN_S / 3)
    _signal(alive, signal.SIGTERM)
    _gone, alive = psutil.wait_procs(alive, timeout=SHUTDOWN_S / 6)
    _signal(alive, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=SHUTDOWN_S / 6)
    for path in segments:
        path.unlink(missing_ok=True)
    _remove_sockets()


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _remove_sockets() -> None:
    """Remove this user's weight-transfer sockets that nobody listens to any more (verl leaves one a
    replica).
    """
    bound = Path("/proc/net/unix").read_text() if Path("/proc/net/unix").exists() else ""
    for path in Path(tempfile.gettempdir()).glob("rl-colocate-zmq-*.sock"):
        with contextlib.suppress(FileNotFoundError):
            if str(path) not in bound and path.stat().st_uid == os.getuid():
                path.unlink()


def _interrupt(_number: int, _frame) -> None:
    """Once: a second signal must not interrupt the cleaning up."""
    _ignore_signals()
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _handle_signals() -> None:
    """Also where the shell has set SIGINT to be ignored, as it does for a command in the
    background.
    """
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


class _TaskRunner:
    """verl's task runner, made right after ``ray.init``, whose SIGTERM handler would end us
    uncleaned.

    It is kept: verl forgets it once it has run, and Ray then kills its actors, engines included,
    before :func:`shut_down` can end these in order.
    """

    kept: ClassVar[list] = []

    @classmethod
    def remote(cls, *args, **kwargs):
        return cls._keep(TaskRunnerV1.remote(*args, **kwargs))

    @classmethod
    def options(cls, *args, **kwargs):
        made = TaskRunnerV1.options(*args, **kwargs)
        return SimpleNamespace(
            remote=lambda *args, **kwargs: cls._keep(made.remote(*args, **kwargs))
        )

    @classmethod
    def _keep(cls, runner):
        _handle_signals()
        cls.kept.append(runner)
        return runner


@hydra.main(config_path="config", config_name="one_off_pipeline", version_base=None)
def main(config: DictConfig) -> None:
    """Check, train, clean up."""
    auto_set_device(config)
    try:
        check(config)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_CONFIG)
    _handle_signals()
    try:
        run_ppo(config, task_runner_class=_TaskRunner)
    except KeyboardInterrupt:
        print(
            "interrupted: shutting down; the last checkpoint stands, the same command resumes "
            "from it",
            file=sys.stderr,
        )
        sys.exit(EXIT_INTERRUPTED)
    finally:
        _ignore_signals()
        shut_down()


if __name__ == "__main__":
    main()
