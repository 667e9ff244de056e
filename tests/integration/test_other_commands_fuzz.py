"""Broken arguments of the commands whose inputs are settings rather than files of rows."""

import pytest
from hypothesis import given

from tests.helpers.broken_inputs import broken_arguments
from tests.helpers.command_fuzz import FuzzedCommand, check_answer, fuzz, run_command

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
    (WATCH, ["--last-step", "--cores", "--trackers", "--tasks", "limit="]),
    (DOCTOR, ["--url"]),
]


@pytest.mark.parametrize(
    ("command", "options"), COMMANDS, ids=[command.name for command, _ in COMMANDS]
)
@pytest.mark.parametrize(
    "examples", [2, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_broken_arguments(command, options, examples):
    @fuzz(examples, seeded=examples == 2)
    @given(broken=broken_arguments(command, options))
    def check(broken):
        check_answer(command, broken)

    check()


def test_the_watcher_ends_where_no_checkpoint_comes():
    answer = run_command(WATCH)
    assert answer.exit_code == 2 and "a checkpoint has not come to" in answer.output
