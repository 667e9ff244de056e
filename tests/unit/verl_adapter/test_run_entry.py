"""verl's task runner outlives verl's hold on it; else Ray kills the engines before they end."""

import gc
import weakref
from types import SimpleNamespace

import pytest

from verl_pipeline.verl_adapter import run_entry
from verl_pipeline.verl_adapter.run_entry import KeptTaskRunner


class Runner:
    """Stands for the handle of an actor."""


@pytest.fixture(autouse=True)
def starts(monkeypatch):
    """What happened right after ``ray.init``."""
    calls = []
    actor_class = SimpleNamespace(remote=Runner)
    task_runner = SimpleNamespace(remote=Runner, options=lambda **_options: actor_class)
    monkeypatch.setattr(run_entry, "TaskRunnerV1", task_runner)
    monkeypatch.setattr(KeptTaskRunner, "on_start", lambda: calls.append("started"), raising=False)
    monkeypatch.setattr(KeptTaskRunner, "kept_runners", [])
    return calls


@pytest.mark.parametrize(
    "make", [KeptTaskRunner.remote, lambda: KeptTaskRunner.options(runtime_env={}).remote()]
)
def test_the_task_runner_is_kept_and_signals_are_ours(make, starts):
    runner = weakref.ref(make())
    gc.collect()
    assert runner() is not None and starts == ["started"]
