"""Every mode of the pipeline benchmark names things that exist."""

import importlib

import pytest
from verl.checkpoint_engine import CheckpointEngineRegistry

from benchmarks.modes import MODES

KEY = "checkpoint_engine.custom_backend_module="


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_a_modes_module_registers_its_checkpoint_engine(mode):
    modules = [word.partition(KEY)[2] for word in mode.overrides if KEY in word]
    for module in modules:
        importlib.import_module(module)
        assert CheckpointEngineRegistry.get("gloo").__module__ == module
    backend = "actor_rollout_ref.rollout.checkpoint_engine.backend=gloo"
    assert bool(modules) is (backend in mode.overrides)
