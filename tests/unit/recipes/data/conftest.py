"""Fixtures: a model whose tokens are characters, and preparations of a folder of data files."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from verl_pipeline.recipes.deepcoder.data.preparation import Preparation, PreparationResult
from verl_pipeline.recipes.deepcoder.data.preparation_loader import load_preparation
from verl_pipeline.recipes.deepcoder.data.preparation_report import write_reports
from verl_pipeline.testing.tiny_run import write_model


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def prepare_in(model) -> Callable[..., PreparationResult]:
    """A function that prepares data below a folder, with settings as on the command line."""

    def run_preparation(
        folder: Path, *settings: str, data: Path | None = None
    ) -> PreparationResult:
        overrides = [f"model={model}", f"output={folder / 'out'}", "hub=false", *settings]
        config = load_preparation(None, [*([f"data={data}"] if data else []), *overrides])
        result = Preparation(config, Console(quiet=True)).run()
        write_reports(config, result)
        return result

    return run_preparation


@pytest.fixture
def prepare(prepare_in, tmp_path) -> Callable[..., PreparationResult]:
    """The same function, for ``tmp_path``."""
    return functools.partial(prepare_in, tmp_path)
