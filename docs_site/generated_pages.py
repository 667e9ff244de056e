"""Pages that follow from the code: commands, settings, public functions, examples.

Invariant: every command, field and function is read from where it is defined; nothing is listed
here twice but the names of the modules that users import.
"""

import importlib
from pathlib import Path

import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

ROOT = Path(__file__).parents[1]
# Command, and the module with its typer application or function.
COMMANDS = {"verl-pipeline": "verl_pipeline.cli"} | {
    f"python -m {module.removesuffix('.__main__')}": module
    for module in (
        "verl_pipeline.quickstart.__main__",
        "verl_pipeline.recipes.deepcoder.generate",
        "verl_pipeline.recipes.deepcoder.prepare",
        "verl_pipeline.recipes.deepcoder.train",
        "verl_pipeline.recipes.deepcoder.distill",
        "verl_pipeline.recipes.deepcoder.ablation",
        "verl_pipeline.recipes.deepcoder.demo",
        "verl_pipeline.recipes.deepcoder.card",
    )
}
SETTINGS = "verl_pipeline/config/one_off_pipeline.yaml"
# What users import, by room.
MODULES = {
    "Filters": "verl_pipeline.filters.protocol",
    "Filters by name": "verl_pipeline.filters.registry",
    "Selectors of prompts": "verl_pipeline.curriculum.protocol",
    "Selectors by name": "verl_pipeline.curriculum.registry",
    "Rewards": "verl_pipeline.rewards.code",
    "Grading": "verl_pipeline.grading",
    "Sandbox": "verl_pipeline.sandbox",
    "Evaluation tasks": "verl_pipeline.evaluation.task",
    "Schedule": "verl_pipeline.trainer.schedule",
}


def make_pages() -> dict[str, str]:
    """Texts of the generated pages, by path below ``docs/``."""
    return {
        "reference/commands.md": make_commands_page(),
        "reference/settings.md": make_settings_page(),
        "reference/functions.md": make_functions_page(),
        "examples.md": make_examples_page(),
    }


def make_commands_page() -> str:
    """Every command with its options, as its ``--help`` has them."""
    parts = ["# Commands\n"]
    for name, module in COMMANDS.items():
        loaded = importlib.import_module(module)
        command = get_command(loaded.app if hasattr(loaded, "app") else _wrap(loaded.main))
        for one in getattr(command, "commands", {}).values():
            # The list of commands has whole sentences: click cuts a help text at 45 characters.
            one.short_help = (one.help or "").partition("\n")[0]
        context = typer.Context(command, info_name=name)
        # Short: the table of contents cuts long ones.
        title = name.removeprefix("python -m verl_pipeline.recipes.")
        # One level down: the page has a title of its own.
        text = get_docs_for_click(obj=command, ctx=context, name=name, title=title)
        parts.append(
            "\n".join(f"#{row}" if row.startswith("#") else row for row in text.splitlines())
        )
    return "\n\n".join(parts) + "\n"


def _wrap(main) -> typer.Typer:
    app = typer.Typer(add_completion=False)
    app.command()(main)
    return app


def make_settings_page() -> str:
    """Every field of ours with its comment and default."""
    text = (ROOT / SETTINGS).read_text()
    return (
        "# Settings\n\nEvery field of ours, with its default. [How to set them, what is derived]"
        f"(../configuration.md).\n\n```yaml\n{text}```\n"
    )


def make_functions_page() -> str:
    """What users import, by mkdocstrings."""
    parts = [f"## {title}\n\n::: {module}\n" for title, module in MODULES.items()]
    return "# Functions\n\n" + "\n".join(parts)


def make_examples_page() -> str:
    """A line an example: the title of its README, or the docstring's first line."""
    rows = []
    for path in sorted((ROOT / "examples").iterdir()):
        if (readme := path / "README.md").is_file():
            title = readme.read_text().splitlines()[0].removeprefix("# ")
            rows.append(f"* [{title}](../examples/{path.name}/README.md)")
        elif path.suffix == ".py":
            title = path.read_text().splitlines()[0].strip('"').partition(":")[0]
            rows.append(f"* [{title}](../examples/{path.name})")
    return "# Examples\n\n" + "\n".join(rows) + "\n"
