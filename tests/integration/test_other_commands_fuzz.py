"""Broken arguments of the commands whose inputs are settings rather than files of rows."""

import pytest

from tests.helpers.broken_inputs import broken_arguments
from tests.helpers.command_fuzz import FuzzedCommand, check_answers, efforts, run_command

WATCH = FuzzedCommand(
    name="eval-watch",
    module="verl_pipeline.cli",
    arguments=(
        *("eval-watch", "checkpoints", "--idle-s", "1", "--output", "out"),
        *("--tasks", "gsm8k", "--data", "data"),
    ),
    files={
        "checkpoints/notes.txt": "no checkpoint yet",
        "data/gsm8k.jsonl": [{"question": "3 + 5?", "answer": "The sum.\n#### 8"}],
    },
    exit_codes=frozenset({0, 2}),
    preload=("verl_pipeline.evaluation.checkpoint_watcher",),
)
DOCTOR = FuzzedCommand(
    name="doctor",
    module="verl_pipeline.cli",
    arguments=("doctor", "--cpu"),
    files={},
    exit_codes=frozenset({0, 1, 2}),
    preload=("verl_pipeline.doctor",),
)
COMMANDS = [
    pytest.param(
        WATCH, ["--last-step", "--cores", "--trackers", "--tasks", "limit="], id="eval-watch"
    ),
    pytest.param(DOCTOR, ["--url"], id="doctor", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("command", "options"), COMMANDS)
@efforts(quick=2, many=60)
def test_broken_arguments(command, options, effort):
    check_answers(command, broken_arguments(command, options), effort)


@pytest.mark.slow
def test_the_watcher_ends_where_no_checkpoint_comes():
    answer = run_command(WATCH)
    assert answer.exit_code == 2 and "a checkpoint has not come to" in answer.output
