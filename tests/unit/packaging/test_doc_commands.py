"""Commands, settings and code of the documents: they exist, and the how-to pages' code runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.doc_commands import (
    PYTHON,
    SHELLS,
    Block,
    find_broken_python,
    find_problems,
    find_unknown_fields,
    list_blocks,
    list_commands,
)
from tests.helpers.patience import scale_deadline
from tests.helpers.repository import ROOT

DOCUMENTS = sorted(
    path
    for pattern in ("README.md", "docs/**/*.md", "examples/*/README.md", "verl_pipeline/**/*.md")
    for path in ROOT.glob(pattern)
)
HOW_TO = sorted((ROOT / "docs/how-to").glob("*.md"))
documents = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
pytestmark = pytest.mark.medium


def check_commands(markdown: str) -> list[str]:
    return [
        f"{' '.join(words)}: {problem}"
        for block in list_blocks(markdown)
        if block.language in SHELLS
        for words in list_commands(block)
        for problem in find_problems(words)
    ]


@documents
def test_every_command_exists_with_its_options(path):
    assert check_commands(path.read_text()) == []


@documents
def test_every_field_of_ours_exists(path):
    assert find_unknown_fields(path.read_text()) == []


@documents
def test_every_python_block_is_python(path):
    blocks = [block for block in list_blocks(path.read_text()) if block.language in PYTHON]
    assert list(filter(None, map(find_broken_python, blocks))) == []


def test_commands_are_found():
    found = [
        words
        for path in DOCUMENTS
        for block in list_blocks(path.read_text())
        if block.language in SHELLS
        for words in list_commands(block)
    ]
    programs = [Path(words[0]).name for words in found]
    assert programs.count("verl-pipeline") > 50 and programs.count("make") > 8
    modules = {words[2] for words in found if "python" in words[0] and "-m" in words[1:2]}
    assert {"verl_pipeline.main", "verl.trainer.main_ppo", "benchmarks.pipeline"} <= modules


def name_file(block: Block, number: int) -> str:
    """The file that a block's first line names, as ``# folder/name.py``."""
    named = re.match(r"# ([\w/]+\.py)\n", block.text)
    return named[1] if named else f"block_{number}.py"


def run_blocks(markdown: str, folder: Path) -> list[str]:
    """Write all Python blocks of a page, run them in their order; what failed."""
    blocks = [block for block in list_blocks(markdown) if block.language in PYTHON]
    files = [name_file(block, number) for number, block in enumerate(blocks)]
    for block, name in zip(blocks, files, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(block.text)
    failed = []
    for block, name in zip(blocks, files, strict=True):
        if block.reason:
            continue
        done = subprocess.run(
            [sys.executable, name],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
            capture_output=True,
            text=True,
            timeout=scale_deadline(60),
        )
        if done.returncode:
            failed.append(f"{name}: {done.stderr}")
    return failed


WITH_CODE = [path for path in HOW_TO if "```python" in path.read_text()]


@pytest.mark.parametrize("path", WITH_CODE, ids=lambda path: path.stem)
def test_the_code_of_a_how_to_page_runs(path, tmp_path):
    assert run_blocks(path.read_text(), tmp_path) == []


@pytest.mark.parametrize(
    ("page", "example"),
    [("write-a-selector", "custom_selector"), ("write-an-evaluation-task", "custom_task")],
)
def test_a_how_to_page_shows_the_files_of_its_example(page, example):
    blocks = list_blocks((ROOT / f"docs/how-to/{page}.md").read_text())
    shown = dict(
        block.text.removeprefix("# ").split("\n", 1) for block in blocks if block.language in PYTHON
    )
    folder = ROOT / "examples" / example
    files = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.py")}
    assert shown == files


def test_there_is_code_to_run():
    assert len(WITH_CODE) >= 5


# ---- the checks themselves ------------------------------------------------------------------

# Made of parts: another test looks for every dotted name of ours.
NO_MAIN, NO_BENCHMARK = ".".join(["verl_pipeline", "mian"]), ".".join(["benchmarks", "pipline"])


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("verl-pipeline raport outputs/run-1", "No such command"),
        ("verl-pipeline report outputs/run-1 --outt page.html", "No such option: --outt"),
        ("verl-pipeline report", "Missing argument"),
        ("verl-pipeline plan --gpus many", "valid integer"),
        ("$ .venv/bin/verl-pipeline grade a.jsonl b.jsonl --outptu v", "No such option"),
        ("verl-pipeline doctor && verl-pipeline tpo RUN", "No such command"),
        ("DATA=/data verl-pipeline top RUN --onse", "No such option: --onse"),
        ("verl-pipeline top RUN \\\n    --onse", "No such option: --onse"),
        ("make quickstrat", "no target quickstrat"),
        ("make test PYTEST_ARG='-x'", "no variable PYTEST_ARG"),
        (f"python -m {NO_MAIN} +verl_pipeline=cpu", f"no module {NO_MAIN}"),
        ("python -m verl_pipeline.main --chek", "has no --chek"),
        ("python -m verl_pipeline.main +verl_pipeline=gpu", "no overlay +verl_pipeline=gpu"),
        ("python -m verl_pipeline.main +trainer.v1.one_off_pipeline.staleness=0", "takes no +"),
        ("python3 -m verl.trainer.main_ppo trainer.v1.one_off_pipeline.staleness=0", "needs a +"),
        (f"python -m {NO_BENCHMARK}", f"no module {NO_BENCHMARK}"),
        ("python -m benchmarks.pipeline --qick", "No such option: --qick"),
        ("python -m verl_pipeline.recipes.deepcoder.train --hardwear cpu", "No such option"),
        ("python -m verl_pipeline.verl_adapter.contract --updat", "has no --updat"),
    ],
)
@pytest.mark.parametrize("language", ["", "bash"])
def test_a_wrong_command_is_found(command, problem, language):
    (found,) = check_commands(f"Text.\n\n```{language}\n{command}\n```\n")
    assert problem in found


@pytest.mark.parametrize(
    "command",
    [
        "verl-pipeline report outputs/run-1 outputs/run-2  # --outt is in a comment",
        "python -m verl_pipeline.metrics > docs/metrics.md",
        "python -m verl_pipeline.main <your overrides> --check",
        "cd x && make demo; make doctor | tee log",
        "docker run image verl-pipeline raport",  # another machine's
        "python other.py --any",
        "step 12/100 | reward 0.432 | it's output",
    ],
)
def test_a_right_command_is_left_alone(command):
    assert check_commands(f"```\n{command}\n```") == []


def test_output_is_no_command():
    assert check_commands("```text\nmake nothing\n```\n`make nothing`\n") == []


def test_an_indented_block_is_found():
    assert len(check_commands("* item\n\n  ```\n  make nothing\n  ```\n")) == 1


@pytest.mark.parametrize("field", ["stalenes", "deadlines.reward", "kv.keep", "weight_check.no"])
def test_an_unknown_field_is_found(field):
    text = f"Set `trainer.v1.one_off_pipeline.{field}=1`."
    assert find_unknown_fields(text) == [f"trainer.v1.one_off_pipeline.{field}"]
    assert find_unknown_fields("trainer.v1.one_off_pipeline.deadlines.reward_s=9.") == []


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        ("```python\n# a.py\nX = 1\n```\n```python\nfrom a import X\nassert X == 1\n```", 0),
        ("```python\n# b/a.py\nX = 1\n```\n```python\nfrom b.a import X\nassert X == 2\n```", 1),
        ("```python\nimport nothing_that_exists\n```", 1),
        ("<!-- not run: needs a GPU -->\n```python\nimport nothing_that_exists\n```", 0),
        ("<!-- not run: -->\n```python\nimport nothing_that_exists\n```", 1),
    ],
)
def test_code_that_fails_is_found(tmp_path, text, failed):
    assert len(run_blocks(text, tmp_path)) == failed


def test_code_that_is_none_is_found():
    assert find_broken_python(Block("python", "def f(:\n    ...\n", "")) is not None
