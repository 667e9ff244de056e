"""The state of a run, damaged: read here, without a process, so that many can be tried."""

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given

from tests.helpers.broken_inputs import broken_contents, write_contents
from tests.helpers.command_fuzz import Answer, FuzzedCommand, efforts, find_faults, fuzz
from tests.helpers.damaged_files import FILE_DAMAGES, damage_file
from verl_pipeline.errors import UserError, show_line
from verl_pipeline.recipes.deepcoder.stages.run_state import load_state

STATE_FILE = "stages.json"
STATE = {
    "version": 1,
    "identity": {"content of data.train_files": ["ab" * 32], "data.seed": 1},
    "stages": {
        "first": {
            "first_step": 4,
            "start": 16,
            "batch": 6,
            "settings": {"x": "1"},
            "attempts": [
                {"number": 1, "resumed_from": 4, "exit_code": -9},
                {"number": 2, "resumed_from": 4, "exit_code": None},
            ],
            "ended_at": 9,
            "why": "rule",
            "status": "done",
        }
    },
}
STATE_READER = FuzzedCommand("state", "", (), {STATE_FILE: STATE}, frozenset({0, 2}))
# Without a process there is neither a limit of memory nor a user who may not read all.
DAMAGES = [name for name in FILE_DAMAGES if name not in ("missing", "endless zeros", "unreadable")]


def find_faults_of_reader(broken) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / STATE_FILE
        if broken.keeps_file:
            write_contents(path, STATE)
        broken.make(path)
        exit_code, output = 0, ""
        try:
            state = load_state(path)
            with contextlib.suppress(UserError):
                state.write_file(path)  # a link, for example
        except UserError as error:
            exit_code, output = 2, show_line(str(error))
    return [*find_faults(STATE_READER, broken, Answer(exit_code, output, ())), output]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file(damage):
    *faults, output = find_faults_of_reader(damage_file(STATE_FILE, damage))
    assert not faults, output


@efforts(quick=100, many=3000)
def test_broken_contents(effort):
    @fuzz(effort)
    @given(broken=broken_contents(STATE_READER, STATE_FILE))
    def check(broken):
        *faults, output = find_faults_of_reader(broken)
        assert not faults, output

    check()
