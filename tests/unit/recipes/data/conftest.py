"""A model folder whose tokenizer counts characters, and a preparation of a folder of data files."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from recipes.deepcoder.data.preparation import Outcome, Pipeline
from recipes.deepcoder.data.preparation_loader import load_config
from recipes.deepcoder.data.preparation_report import write_reports
from verl_pipeline.testing.tiny import write_model


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def prepare_in(model) -> Callable[..., Outcome]:
    """Prepare below a folder with settings as on the command line."""

    def run(folder: Path, *settings: str, data: Path | None = None) -> Outcome:
        given = [f"model={model}", f"output={folder / 'out'}", "hub=false", *settings]
        config = load_config(None, [*([f"data={data}"] if data else []), *given])
        outcome = Pipeline(config, Console(quiet=True)).run()
        write_reports(config, outcome)
        return outcome

    return run


@pytest.fixture
def prepare(prepare_in, tmp_path) -> Callable[..., Outcome]:
    """The same, below ``tmp_path``."""
    return functools.partial(prepare_in, tmp_path)
