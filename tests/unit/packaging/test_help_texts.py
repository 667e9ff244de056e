"""The help of every command of ours: plain text, complete, without the code's own notation."""

import importlib
import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from tests.helpers.repository import ROOT, list_repository_files
from verl_pipeline import cli

# Every module that is a command of its own ends with this.
RUN = "    typer.run(main)\n"
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in list_repository_files("*.py")
    if path.read_text().endswith(RUN)
)
SUBCOMMANDS = sorted(typer.main.get_command(cli.app).commands)
# Notation of docstrings and of rich, and what belongs to readers of the code.
MARKUP = re.compile(
    r"``|:\w+:`|`_|\[/|\[(?:bold|dim|red|green|link)\b|\\[bf]|\b(?:Args|Attributes|Raises|Returns):"
    r"|\bInvariants?:"
)


def load_app(name: str) -> tuple[typer.Typer, list[str]]:
    """The application behind a command, and the words that lead to it."""
    if name.startswith("verl-pipeline"):
        return cli.app, name.split()[1:]
    app = typer.Typer(add_completion=False)
    app.command()(importlib.import_module(name).main)
    return app, []


def read_help(name: str, columns: int) -> str:
    app, words = load_app(name)
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": str(columns)})
    assert shown.exit_code == 0, shown.output
    return shown.output


def list_help_texts(name: str) -> list[str]:
    """What the code says about a command and its parameters."""
    app, words = load_app(name)
    command = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    texts = [parameter.help for parameter in command.params if getattr(parameter, "help", None)]
    return [*texts, *filter(None, (command.help or "").split("\n\n"))]


def squeeze(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


pytestmark = pytest.mark.medium
COMMANDS = ["verl-pipeline", *(f"verl-pipeline {name}" for name in SUBCOMMANDS), *MODULES]


def test_all_commands_are_found():
    known = {
        "verl_pipeline.quickstart.__main__",
        "verl_pipeline.recipes.deepcoder.train",
        "benchmarks.pipeline",
    }
    assert known <= set(MODULES) and len(MODULES) >= 13
    assert {"doctor", "plan", "grade", "eval", "eval-compare", "eval-watch"} <= set(SUBCOMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_plain_and_complete_texts(name):
    shown = read_help(name, 1000)
    assert MARKUP.findall(shown) == []
    assert str(ROOT) not in shown  # a default that is a path of this machine
    texts = list_help_texts(name)
    assert texts and [text for text in texts if squeeze(text) not in squeeze(shown)] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_terminal_without_cutting(name):
    narrow = read_help(name, 80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert "…" not in narrow


def test_the_version_is_shown_without_loading_verl():
    code = (
        "import sys; sys.argv[1:] = ['--version']\n"
        "from verl_pipeline import cli\n"
        "try:\n    cli.main()\n"
        "finally:\n    print(sorted({'torch', 'verl', 'vllm', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"verl-pipeline \d+\.\d+\.\d+\S*", lines[0])
    assert any(re.fullmatch(r"verl \d\S+", line) for line in lines)
    assert lines[-1] == "[]"
