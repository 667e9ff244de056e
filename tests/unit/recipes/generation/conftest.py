"""Fixtures: the two sandboxes of a generation, and a model whose tokens are characters."""

from pathlib import Path

import pytest

from verl_pipeline.recipes.deepcoder.generation.program_runs import Interpreters
from verl_pipeline.sandbox import Sandbox
from verl_pipeline.testing.tiny_run import write_model


@pytest.fixture(scope="module")
def interpreters():
    with Sandbox(1) as first, Sandbox(1, hash_seed=1) as second:
        yield Interpreters(first, second)


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))
