"""``stages.json``: whole after any stop, and the count of prompts over stages."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from rich.console import Console

from recipes.deepcoder.stages import run_state as state
from recipes.deepcoder.stages.run_state import Attempt, OtherRun, Record, State


@given(stages=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 64)), min_size=1, max_size=5))
def test_each_stage_begins_at_the_prompt_where_the_one_before_ended(stages):
    """``stages``: steps and batch of each; the plain model lists the prompts."""
    trained, first, start = [], 0, 0
    for steps, batch in stages:
        record = Record(first, start, batch, {})
        for step in range(first + 1, first + steps + 1):
            trained += range(record.consumed(step - 1), record.consumed(step))
        first, start = first + steps, record.consumed(first + steps)
    assert trained == list(range(start))


def test_what_is_saved_is_what_is_loaded(tmp_path):
    path = tmp_path / "stages.json"
    assert state.load(path) is None
    attempts = (Attempt(1, 0, -9), Attempt(2, 4))
    saved = State(
        {"data.seed": 1},
        {"a": Record(0, 0, 4, {"x": "1"}, attempts), "b": Record(4, 16, 6, {}, (), 9, "rule")},
    )
    saved.save(path)
    assert state.load(path) == saved
    assert [entry["status"] for entry in json.loads(path.read_text())["stages"].values()] == [
        "running",
        "done",
    ]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 1}', '{"version": 99, "identity": {}, "stages": {}}']
)
def test_a_file_that_cannot_be_read_is_refused_and_kept(tmp_path, text):
    path = tmp_path / "stages.json"
    path.write_text(text)
    with pytest.raises(OtherRun, match=r"stages\.json .*choose another --output") as error:
        state.load(path)
    assert path.read_text() == text
    assert ("is of version 99, this is" in str(error.value)) == ("99" in text)
    assert "OtherRun" not in str(error.value)


def config_with(**changes):
    """verl's settings as far as they are compared, with changes by key, dots written as two
    underscores.
    """
    config = OmegaConf.create(
        {
            "actor_rollout_ref": {
                "model": {"path": "m"},
                "actor": {"optim": {"lr": 1e-6, "betas": [0.9, 0.999], "total_training_steps": -1}},
            },
            "data": {
                "max_prompt_length": 64,
                "filter_overlong_prompts": True,
                "train_max_samples": -1,
                "seed": 1,
            },
        }
    )
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    return config


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"actor_rollout_ref__model__path": "n"}, "actor_rollout_ref.model.path"),
        ({"data__max_prompt_length": 32}, "data.max_prompt_length"),
        ({"data__seed": 2}, "data.seed"),
        ({"data__train_max_samples": 10}, "data.train_max_samples"),
        ({"data__filter_overlong_prompts": False}, "data.filter_overlong_prompts"),
        # verl restores it from the checkpoint, so that a change would be recorded and not be in
        # force
        ({"actor_rollout_ref__actor__optim__lr": 1e-5}, "actor_rollout_ref.actor.optim.lr"),
    ],
)
def test_what_may_not_change_under_a_run_is_refused_by_name(tmp_path, changes, name):
    path = tmp_path / "stages.json"
    State(state.identity_of(config_with(), []), {"a": Record(0, 0, 4, {})}).save(path)
    begun = state.load(path)
    state.check_identity(begun, state.identity_of(config_with(), []))
    with pytest.raises(OtherRun, match=f"{name}: the run began with"):
        state.check_identity(begun, state.identity_of(config_with(**changes), []))


def test_the_number_of_steps_is_the_stages_own():
    longer = config_with(actor_rollout_ref__actor__optim__total_training_steps=8)
    assert state.constants_of(longer) == state.constants_of(config_with())


def test_other_prompts_are_told_by_their_content(tmp_path):
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    one.write_bytes(b"prompts")
    two.write_bytes(b"prompts")
    begun = State(state.identity_of(config_with(), [one]), {"a": Record(0, 0, 4, {})})
    state.check_identity(begun, state.identity_of(config_with(), [two]))
    two.write_bytes(b"other prompts")
    with pytest.raises(OtherRun, match="content of data.train_files: the run began with"):
        state.check_identity(begun, state.identity_of(config_with(), [two]))


def test_settings_of_a_finished_stage_are_compared_key_by_key():
    words = ["+a.b=1", "c=2", "c=3"]
    record = Record(0, 0, 4, state.by_key(words), (), 4, "last_step 4")
    assert record.settings == {"a.b": "1", "c": "3"}
    state.check_settings("first", record, state.by_key(["a.b=1", "c=3", "data.train_files=moved"]))
    with pytest.raises(OtherRun, match="c: stage first is done, with 3, now it is 4"):
        state.check_settings("first", record, {"a.b": "1", "c": "4"})
    with pytest.raises(OtherRun, match="d: stage first is done, with it not given, now it is 5"):
        state.check_settings("first", record, {"a.b": "1", "c": "3", "d": "5"})


HOLDER = """
import fcntl, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def hold(output, seconds):
    command = [sys.executable, "-c", HOLDER, str(output / ".lock"), str(seconds)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_runner_waits_for_a_training_that_is_ending(tmp_path):
    holder = hold(tmp_path, 2)
    with state.sole_runner(tmp_path, Console(quiet=True)):
        assert holder.poll() is not None or holder.wait(10) == 0


def test_a_second_runner_is_refused_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(state, "OWNER_S", 0.1)
    holder = hold(tmp_path, 60)
    try:
        with (
            pytest.raises(OtherRun, match="another run is writing there"),
            state.sole_runner(tmp_path, Console(quiet=True)),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
