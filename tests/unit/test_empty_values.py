"""An empty path or text is refused by name, whichever command and option it is given to."""

import inspect
import typing
from pathlib import Path

import pytest
import yaml
from typer import Typer
from typer.testing import CliRunner

from verl_pipeline.evaluation import commands
from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.evaluation.settings_loader import load_eval_config
from verl_pipeline.grading.commands import run_grade
from verl_pipeline.path_options import parse_path
from verl_pipeline.planning.commands import run_plan
from verl_pipeline.quickstart import __main__ as quickstart
from verl_pipeline.recipes.deepcoder import ablation, card, demo, prepare, train
from verl_pipeline.recipes.deepcoder.data.preparation_loader import find_profile, load_preparation
from verl_pipeline.recipes.deepcoder.stages.stage_loader import (
    STAGES_FILE,
    StageFileError,
    load_runs,
)
from verl_pipeline.report.commands import run_report
from verl_pipeline.telemetry.commands import run_ledger, run_top

COMMANDS = [
    run_plan,
    run_grade,
    run_ledger,
    run_top,
    commands.run_eval,
    commands.run_compare,
    commands.run_watch,
    prepare.main,
    train.main,
    card.main,
    demo.main,
    ablation.main,
    quickstart.main,
    run_report,
]


def list_paths():
    """Every parameter of a command that is a path: the command, its name, and what typer knows."""
    for command in COMMANDS:
        hints = typing.get_type_hints(command, include_extras=True)
        for name in inspect.signature(command).parameters:
            kind, *details = typing.get_args(hints[name])
            if Path in (kind, *typing.get_args(kind)):
                yield pytest.param(command, name, details[0], id=f"{command.__module__} {name}")


def run_command(command, arguments):
    app = Typer()
    app.command()(command)
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize(("command", "name", "details"), [*list_paths()])
def test_an_empty_path_is_refused(command, name, details):
    assert details.parser is parse_path
    if "Argument" in type(details).__name__:
        # The first argument comes first.
        names = [entry for entry in inspect.signature(command).parameters]
        arguments = ["x"] * names.index(name) + [""] * 2
        shown = name.upper()
    else:
        arguments = [f"--{name.replace('_', '-')}", ""]
        shown = arguments[0]
    result = run_command(command, arguments)
    assert result.exit_code == 2, result.output
    assert (
        shown.lower() in result.output.lower()
        and "is empty; name a file or folder" in result.output
    )


@pytest.mark.parametrize(
    "name", ["output", "data", "engine.chat_template", "engine.dtype", "style", "grader.tier"]
)
@pytest.mark.parametrize("empty", ["", "''", " "])
def test_an_empty_setting_of_an_evaluation_is_refused(name, empty):
    with pytest.raises(BadSetting, match=rf"^{name}=? ?is empty: give it a value|^{name}='': must"):
        load_eval_config(None, ["model=canonical", "tasks=[gsm8k]", f"{name}={empty}"])


def test_an_empty_system_prompt_is_one():
    assert load_eval_config(None, ["model=canonical", "tasks=[gsm8k]", "system=''"]).system == ""


@pytest.mark.parametrize("option", ["--tasks", "--model", "--config", "--output", "--data"])
def test_an_empty_option_of_an_evaluation_is_not_left_out(option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eval.yaml").write_text("{model: canonical, tasks: [gsm8k], hub: false}")
    result = run_command(commands.run_eval, ["--config", "eval.yaml", option, ""])
    assert result.exit_code == 2 and option.lstrip("-") in result.output.lower(), result.output


@pytest.mark.parametrize(
    "name", ["output", "data", "work", "difficulty.model", "sources.mbpp.file", "model"]
)
@pytest.mark.parametrize("empty", ["", "''", " "])
def test_an_empty_setting_of_a_preparation_is_refused(name, empty):
    with pytest.raises(BadSetting, match=rf"^{name}(=? is empty|: not set)"):
        load_preparation("cpu", [f"{name}={empty}"])


def test_an_empty_name_is_no_profile():
    with pytest.raises(BadSetting, match="--config : no such file"):
        find_profile("")
    with pytest.raises(BadSetting, match="--config : no such file"):
        load_preparation("", [])


@pytest.mark.parametrize("name", ["model", "data"])
def test_an_empty_setting_of_a_run_is_refused(name, tmp_path):
    runs = yaml.safe_load(STAGES_FILE.read_text())
    runs["smollm2-135m"][name] = ""
    (tmp_path / "stages.yaml").write_text(yaml.safe_dump(runs))
    with pytest.raises(StageFileError, match=f"smollm2-135m: {name} is empty"):
        load_runs(tmp_path / "stages.yaml")


def test_an_empty_name_of_a_run_does_not_mean_the_hardwares():
    result = run_command(train.main, ["--run", "", "--dry-run"])
    assert result.exit_code == 2 and "--run : not in" in result.output, result.output
