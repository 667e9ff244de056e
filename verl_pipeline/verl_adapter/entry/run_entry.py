"""verl's entry point ``run_ppo``, with a start that is checked, watched and short on the console.

Invariants:
* Ray does not kill the engines before :mod:`verl_pipeline.main` has ended them in order.
* No process is started on a cluster that cannot hold the run (:mod:`.placement.ray_cluster`).
* The configuration of each start stays on disk; no start replaces that of an earlier one.
"""

import io
import os
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import ray
import torch
from omegaconf import DictConfig, OmegaConf
from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
from verl.utils.device import auto_set_device

from verl_pipeline.outputs.errors import OutputError
from verl_pipeline.trainer.pipeline_config import ConfigError, load_pipeline_config
from verl_pipeline.verl_adapter.cpu.environment import is_cpu_run
from verl_pipeline.verl_adapter.entry.start_settings import derive_start_settings
from verl_pipeline.verl_adapter.placement.ray_cluster import (
    NotStarted,
    PlacementWatch,
    await_slots,
    check_connection,
)
from verl_pipeline.verl_adapter.telemetry.first_tokens import record_first_tokens
from verl_pipeline.verl_adapter.telemetry.verl_modes import record_verl_trainer

# Beyond these Python itself, one thread at a time, is the limit.
MAX_DRIVER_THREADS = 16

# verl's class is a Ray actor class already; this is the plain class inside it.
_TaskRunner = TaskRunnerV1.__ray_metadata__.modified_class


def choose_device(config: DictConfig) -> None:
    """Set ``trainer.device`` to what verl detects on this machine, as verl's entry point does."""
    auto_set_device(config)


def run_training(config: DictConfig, on_start: Callable[[], None]) -> None:
    """Start Ray if it does not run yet, train, and return when verl's task runner has ended.

    Args:
        on_start: called right after ``ray.init``, whose signal handlers it may replace.

    Raises:
        ConfigError: a setting that only Ray's cluster or the data set can refuse.
        NotStarted: Ray did not start a process of the run in time.
        OutputError: the run cannot write, as on a full disk.
    """
    check_connection(config)
    for setting in derive_start_settings(config):
        print(f"[start] derived {setting}", flush=True)
    try:
        run_ppo(config, task_runner_class=WatchedStart(config, on_start))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ConfigError):
            raise ConfigError(*error.cause.lines) from None
        if isinstance(error.cause, NotStarted):
            raise NotStarted(*error.cause.args) from None
        if isinstance(error.cause, OutputError):
            raise OutputError(*error.cause.args) from None
        raise


def write_configuration(config: DictConfig) -> Path:
    """Write the resolved configuration to ``trainer.default_local_dir`` under the next free number.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    folder = Path(config.trainer.default_local_dir)
    text = OmegaConf.to_yaml(config, resolve=True)
    number = 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            path = folder / f"configuration-{number}.yaml"
            try:
                with open(path, "x") as file:
                    file.write(text)
                return path
            except FileExistsError:
                number += 1
            except OSError:
                path.unlink(missing_ok=True)  # half of it, on a full disk
                raise
    except OSError as error:
        raise ConfigError(
            f"trainer.default_local_dir={folder}: cannot be written to ({error}); name a folder "
            "for checkpoints that can"
        ) from error


def give_driver_threads() -> None:
    """Let torch use the node's processors in this process, to which Ray gives one thread.

    What verl computes on the driver's padded tensors needs them (critics, estimators that are not
    in :mod:`.trainers.jagged_trainer`). A run on CPUs keeps one thread a process.
    """
    if not is_cpu_run():
        torch.set_num_threads(min(len(os.sched_getaffinity(0)), MAX_DRIVER_THREADS))


class TaskRunner(_TaskRunner):  # type: ignore[valid-type,misc]
    """verl's task runner, without the configuration on the console.

    verl prints all of it before it sets ``self.config``, and nothing else until then. It is written
    here, beside the checkpoints: the driver may be on another machine.
    """

    def run(self, config: DictConfig) -> None:
        """verl's run."""
        give_driver_threads()
        record_verl_trainer(config)
        record_first_tokens(config)
        with ExitStack() as self._muted:
            self._muted.enter_context(redirect_stdout(io.StringIO()))
            super().run(config)

    @property
    def config(self) -> DictConfig | None:
        """What the run was started with."""
        return self._config

    @config.setter
    def config(self, config: DictConfig | None) -> None:
        self._config = config
        if config is not None:
            self._muted.close()
            print(f"[start] configuration: {write_configuration(config)}", flush=True)


class WatchedStart:
    """Stands for the class of the task runner in ``run_ppo``, which makes one right after
    ``ray.init`` and waits for its ``run``.
    """

    # verl forgets the actor once it has run; Ray would then kill the actors below it, engines
    # included, and vLLM's shared memory would stay behind.
    kept_runners: ClassVar[list[Any]] = []

    def __init__(self, config: DictConfig, on_start: Callable[[], None]):
        self._config, self._on_start = config, on_start
        self._seconds = load_pipeline_config(config).deadlines.cluster_s
        self._options: dict[str, Any] = {}

    def options(self, **options) -> "WatchedStart":
        """Options of the actor."""
        self._options = options
        return self

    def remote(self) -> Any:
        """Check and await the cluster, and start the task runner."""
        self._on_start()
        await_slots(self._config, self._seconds)
        # Named as verl's: it is the prefix of all lines that the run prints.
        runner = ray.remote(TaskRunner).options(**self._options).remote()
        self.kept_runners.append(runner)
        watch = PlacementWatch(self._seconds)

        def run(config: DictConfig) -> ray.ObjectRef:
            result = runner.run.remote(config)
            watch.wait(result)
            return result

        return SimpleNamespace(run=SimpleNamespace(remote=run))
