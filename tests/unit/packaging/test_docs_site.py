"""The docs site: links from the repository work on it, and what is generated follows the code."""

import logging
import shutil

import pytest
import yaml
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from docs_site import generated_pages, hooks
from tests.helpers.repository import ROOT
from verl_pipeline.cli import app

CONFIG = str(ROOT / "mkdocs.yml")


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("schedule.md", "when-it-pays.md#the-map", "when-it-pays.md#the-map"),
        (
            "schedule.md",
            "../verl_pipeline/trainer/schedule.py",
            "source/verl_pipeline/trainer/schedule.py.md",
        ),
        ("schedule.md", "../CONTRIBUTING.md", "CONTRIBUTING.md"),
        (
            "schedule.md",
            "../verl_pipeline/recipes/deepcoder",
            "verl_pipeline/recipes/deepcoder/README.md",
        ),
        ("index.md", "docs/schedule.md", "schedule.md"),
        ("index.md", "docs/demo.png", "demo.png"),
        ("index.md", "docs/planner/model.md#the-limit", "planner/model.md#the-limit"),
        ("planner/model.md", "../when-it-pays.md#the-map", "../when-it-pays.md#the-map"),
        ("schedule/modes.md", "../schedule-drained.png", "../schedule-drained.png"),
        (
            "schedule/modes.md",
            "../../verl_pipeline/trainer/schedule.py",
            "../source/verl_pipeline/trainer/schedule.py.md",
        ),
        (
            "planner/profiles.md",
            "../../verl_pipeline/planner/profiles",
            "../source/verl_pipeline/planner/profiles.md",
        ),
        (
            "verl_pipeline/recipes/deepcoder/README.md",
            "../../../docs/filters.md#x",
            "../../../filters.md#x",
        ),
        (
            "verl_pipeline/recipes/deepcoder/README.md",
            "prepare.py",
            "../../../source/verl_pipeline/recipes/deepcoder/prepare.py.md",
        ),
        ("examples.md", "../examples/slurm/README.md", "examples/slurm/README.md"),
        # Pages in folders below docs/.
        ("grading/isolation.md", "../sandbox-requirements.md", "../sandbox-requirements.md"),
        ("benchmarks/files.md", "../../benchmarks/pools.py", "../source/benchmarks/pools.py.md"),
        (
            "recipe/gpus.md",
            "../../verl_pipeline/recipes/deepcoder/README.md#on-32-h100",
            "../verl_pipeline/recipes/deepcoder/README.md#on-32-h100",
        ),
        # What leads nowhere stays, for --strict to find.
        ("schedule.md", "../verl_pipeline/none.py", "../verl_pipeline/none.py"),
        ("schedule.md", "https://example.org/a.md", "https://example.org/a.md"),
        ("schedule.md", "../../etc/passwd", "../../etc/passwd"),
    ],
)
def test_a_link_leads_to_the_sites_page(page, link, expected):
    assert hooks.point_links(page, f"See [it]({link}).") == f"See [it]({expected})."


def test_code_keeps_its_brackets():
    code = "```\n[x](../verl_pipeline/cli.py)\n```"
    assert hooks.point_links("schedule.md", code) == code


def test_every_command_and_field_is_in_the_reference():
    pages = generated_pages.make_pages()
    names = [one.name or one.callback.__name__ for one in app.registered_commands]
    assert {"doctor", "demo", "plan", "report"} <= set(names)
    for name in names:
        assert f"verl-pipeline {name}" in pages["reference/commands.md"]
    commands = {
        f"verl_pipeline.recipes.deepcoder.{path.stem}"
        for path in (ROOT / "verl_pipeline/recipes/deepcoder").glob("*.py")
        if "typer.run(main)" in path.read_text()
    }
    assert commands and commands <= set(generated_pages.COMMANDS.values())
    text = (ROOT / generated_pages.SETTINGS).read_text()
    fields = yaml.safe_load(text)["trainer"]["v1"]["one_off_pipeline"]
    for field in fields:
        assert f"{field}:" in pages["reference/settings.md"]
    for path in (ROOT / "examples").iterdir():
        if (path / "README.md").exists() or path.suffix == ".py":
            assert f"examples/{path.name}" in pages["examples.md"]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["[a](none.md)", "[a](schedule.md#none)", "[a](../none.py)"])
def test_a_broken_link_ends_the_build(tmp_path, text, caplog):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    with (tmp_path / "docs" / "schedule.md").open("a") as file:
        file.write(f"\n{text}\n")
    config = load_config(
        CONFIG, docs_dir=str(tmp_path / "docs"), site_dir=str(tmp_path / "site"), strict=True
    )
    caplog.set_level(logging.WARNING, "mkdocs")
    with pytest.raises(Abort, match="1 warning"):
        build(config)
