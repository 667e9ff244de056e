"""The commands' answers to names that no file can have, and to a standard output that is full."""

import json
import os
import shlex
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tests.helpers.repository import ROOT
from verl_pipeline.cli import app
from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.recipes.deepcoder.data.preparation_loader import load_preparation

SMALL = "tests.helpers.small_task"
LONG = "a" * 300  # Linux takes 255 bytes
EVAL = ["eval", "--tasks", SMALL, "--n", "1"]
GRADE = ["grade", "problems.jsonl", "solutions.jsonl"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problem = {"id": 1, "source": "mbpp", "test_list": ["assert f() == 1"]}
    (tmp_path / "problems.jsonl").write_text(json.dumps(problem) + "\n")
    solution = {"id": 1, "program": "def f():\n    return 1\n"}
    (tmp_path / "solutions.jsonl").write_text(json.dumps(solution) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "--profile", LONG],
        ["plan", "--json", LONG],
        ["grade", LONG, "solutions.jsonl"],
        ["grade", "problems.jsonl", LONG],
        [*GRADE, "--output", LONG],
        [*EVAL, "--model", "empty", "--output", LONG],
        ["eval", "--tasks", "humaneval", "--model", "empty", "--data", LONG],
        [*EVAL, "--model", "empty", "--config", LONG],
        [*EVAL, "--model", "empty", f"train_data=[{LONG}.jsonl]"],
        [*EVAL, "--model", f"{LONG}.jsonl"],
        ["eval-compare", LONG, LONG],
        ["eval-watch", "run", "--tasks", SMALL, "--output", LONG],
    ],
    ids=lambda arguments: " ".join(arguments).replace(LONG, "LONG"),
)
def test_a_name_that_no_file_can_have_is_refused_in_one_line(arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert LONG in result.stderr and len(result.stderr.splitlines()) == 1
    assert "Errno" not in result.stderr and not result.stdout


def test_a_profile_whose_name_no_file_can_have_is_no_profile():
    with pytest.raises(BadSetting, match="no such file, and no profile"):
        load_preparation(LONG, [])


@pytest.mark.parametrize(
    ("option", "value"), [("--config", "nope.yaml"), ("--config", "."), ("--model", "nope.jsonl")]
)
def test_a_file_that_is_not_there_is_named_in_words_on_standard_error(option, value):
    result = CliRunner().invoke(app, [*EVAL, "--model", "empty", option, value])
    assert result.exit_code == 2 and not result.stdout
    assert value in result.stderr and "Errno" not in result.stderr


def test_a_wrong_file_of_answers_is_named_before_data_are_read():
    arguments = ["eval", "--tasks", "humaneval", "--data", "/nowhere", "--model", "nope.jsonl"]
    assert CliRunner().invoke(app, arguments).stderr.startswith("model=nope.jsonl")


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["eval", "--list"], [*GRADE, "--output", "verdicts"]]
)
def test_a_full_standard_output_is_named(folder, arguments):
    command = [sys.executable, "-m", "verl_pipeline.cli", *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: standard output cannot be written: No space left on device")
    assert "Traceback" not in done.stderr and "ignored" not in done.stderr
    if arguments[0] == "grade":  # what was written before is there
        assert json.loads((folder / "verdicts").read_text())["verdict"] == "accepted"


@pytest.mark.parametrize(
    "module", ["verl_pipeline.metrics", "verl_pipeline.recipes.deepcoder.card"]
)
def test_other_commands_name_a_full_standard_output_too(module):
    arguments = [] if module == "verl_pipeline.metrics" else ["--help"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: standard output cannot be written: No space left")
    assert len(done.stderr.splitlines()) == 1


def test_closed_standard_streams_are_no_obstacle(folder):
    for arguments in (["eval", "--list"], [*GRADE, "--output", "verdicts"]):
        command = shlex.join([sys.executable, "-m", "verl_pipeline.cli", *arguments])
        assert subprocess.run(f"{command} <&- >&- 2>&-", shell=True).returncode == 0
    assert json.loads((folder / "verdicts").read_text())["verdict"] == "accepted"


@pytest.mark.parametrize("output", ["a pipe", "a pipe after a file"])
def test_characters_that_the_output_lacks_are_escaped(tmp_path, output):
    program = "import os\nfrom verl_pipeline.standard_streams import guard_streams\n"
    if output == "a pipe after a file":  # as a fork of the fork server gets it
        program += "os.dup2(2, 1)\n"
    program += "with guard_streams(): print('v\\xe9rdicts')"
    with open(tmp_path / "file", "wb") as file:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONIOENCODING": "ascii"},
            stdout=subprocess.PIPE if output == "a pipe" else file,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 0
    assert (done.stdout if output == "a pipe" else done.stderr) == b"v\\xe9rdicts\n"
