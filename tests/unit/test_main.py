"""verl's task runner outlives verl's hold on it: Ray would kill the engines before they are ended
in order.
"""

import gc
import weakref
from types import SimpleNamespace

import pytest

from verl_pipeline import main


class Runner:
    """Stands for the handle of an actor."""


@pytest.fixture(autouse=True)
def handled(monkeypatch):
    calls = []
    made = SimpleNamespace(remote=Runner)
    monkeypatch.setattr(
        main, "TaskRunnerV1", SimpleNamespace(remote=Runner, options=lambda **_options: made)
    )
    monkeypatch.setattr(main, "_handle_signals", lambda: calls.append("handled"))
    monkeypatch.setattr(main._TaskRunner, "kept", [])
    return calls


@pytest.mark.parametrize(
    "make", [main._TaskRunner.remote, lambda: main._TaskRunner.options(runtime_env={}).remote()]
)
def test_the_task_runner_is_kept_and_signals_are_ours(make, handled):
    runner = weakref.ref(make())
    gc.collect()
    assert runner() is not None and handled == ["handled"]
