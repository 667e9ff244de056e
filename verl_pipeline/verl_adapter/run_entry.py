"""verl's entry point ``run_ppo``, with a task runner that keeps running after verl drops its
reference.

Invariant: Ray does not kill the engines before :mod:`verl_pipeline.main` has ended them in order.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
from verl.utils.device import auto_set_device


def choose_device(config: DictConfig) -> None:
    """Set ``trainer.device`` to what verl detects on this machine, as verl's entry point does."""
    auto_set_device(config)


def run_training(config: DictConfig, on_start: Callable[[], None]) -> None:
    """Start Ray if it does not run yet, train, and return when verl's task runner has ended.

    Args:
        on_start: called right after ``ray.init``, whose signal handlers it may replace.
    """
    KeptTaskRunner.on_start = staticmethod(on_start)
    run_ppo(config, task_runner_class=KeptTaskRunner)


class KeptTaskRunner:
    """verl's task runner, kept alive after it has run.

    verl forgets the actor once it has run; Ray then kills the actors below it, engines included,
    and vLLM's shared memory stays behind.
    """

    on_start: ClassVar[Callable[[], None]]
    kept_runners: ClassVar[list[Any]] = []

    @classmethod
    def remote(cls, *args, **kwargs):
        return cls._keep_runner(TaskRunnerV1.remote(*args, **kwargs))

    @classmethod
    def options(cls, *args, **kwargs):
        actor_class = TaskRunnerV1.options(*args, **kwargs)
        return SimpleNamespace(
            remote=lambda *args, **kwargs: cls._keep_runner(actor_class.remote(*args, **kwargs))
        )

    @classmethod
    def _keep_runner(cls, runner):
        cls.on_start()
        cls.kept_runners.append(runner)
        return runner
