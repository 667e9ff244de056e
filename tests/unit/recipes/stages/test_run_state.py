"""``stages.json``, the count of prompts over stages, and the lock of the output folder."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from rich.console import Console

from verl_pipeline.errors import UserError
from verl_pipeline.outputs.errors import OutputError
from verl_pipeline.recipes.deepcoder.stages import run_state
from verl_pipeline.recipes.deepcoder.stages.run_state import (
    RunMismatchError,
    RunState,
    StageAttempt,
    StageRecord,
    check_finished_stage,
    check_identity,
    describe_identity,
    index_overrides,
    list_constant_settings,
    load_state,
    lock_output,
)


@given(stages=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 64)), min_size=1, max_size=5))
def test_each_stage_begins_at_the_prompt_after_the_last_one_of_the_stage_before(stages):
    """``stages``: number of steps and batch size of each; the plain model lists the prompts."""
    trained, first_step, first_prompt = [], 0, 0
    for steps, batch in stages:
        record = StageRecord(first_step, first_prompt, batch, {})
        for step in range(first_step + 1, first_step + steps + 1):
            trained += range(record.count_prompts(step - 1), record.count_prompts(step))
        first_step += steps
        first_prompt = record.count_prompts(first_step)
    assert trained == list(range(first_prompt))


def test_a_written_state_is_loaded_unchanged(tmp_path):
    path = tmp_path / "stages.json"
    assert load_state(path) is None
    attempts = (StageAttempt(1, 0, -9), StageAttempt(2, 4))
    state = RunState(
        {"data.seed": 1},
        {
            "a": StageRecord(0, 0, 4, {"x": "1"}, attempts),
            "b": StageRecord(4, 16, 6, {}, (), 9, "rule"),
        },
    )
    state.write_file(path)
    assert load_state(path) == state
    assert [entry["status"] for entry in json.loads(path.read_text())["stages"].values()] == [
        "running",
        "done",
    ]


def test_the_names_in_the_file_stay_those_of_earlier_runs(tmp_path):
    stage = {
        "first_step": 4,
        "start": 16,
        "batch": 6,
        "settings": {"x": "1"},
        "attempts": [{"number": 1, "resumed_from": 4, "exit_code": 0}],
        "ended_at": 9,
        "why": "rule",
        "status": "done",
    }
    path, content = tmp_path / "stages.json", {"version": 1, "identity": {}, "stages": {"b": stage}}
    path.write_text(json.dumps(content))
    state = load_state(path)
    record = StageRecord(4, 16, 6, {"x": "1"}, (StageAttempt(1, 4, 0),), 9, "rule")
    assert state.stages == {"b": record}
    state.write_file(path)
    assert json.loads(path.read_text()) == content


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 1}', '{"version": 99, "identity": {}, "stages": {}}']
)
def test_a_file_that_cannot_be_read_is_refused_and_kept(tmp_path, text):
    path = tmp_path / "stages.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"stages\.json: .*choose another --output") as error:
        load_state(path)
    assert path.read_text() == text
    assert ("version: 99, this is version" in str(error.value)) == ("99" in text)


def make_config(**changes):
    """Make the compared part of verl's configuration, with changes by key (``__`` for a dot)."""
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
        # verl restores it from the checkpoint, so a change would be recorded without any effect.
        ({"actor_rollout_ref__actor__optim__lr": 1e-5}, "actor_rollout_ref.actor.optim.lr"),
    ],
)
def test_a_setting_that_must_not_change_during_a_run_is_refused_by_name(tmp_path, changes, name):
    path = tmp_path / "stages.json"
    identity = describe_identity(make_config(), [])
    RunState(identity, {"a": StageRecord(0, 0, 4, {})}).write_file(path)
    state = load_state(path)
    check_identity(state, identity)
    with pytest.raises(RunMismatchError, match=f"{name}: the run began with"):
        check_identity(state, describe_identity(make_config(**changes), []))


def test_the_number_of_steps_may_differ_between_stages():
    longer = make_config(actor_rollout_ref__actor__optim__total_training_steps=8)
    assert list_constant_settings(longer) == list_constant_settings(make_config())


def test_prompts_are_compared_by_content(tmp_path):
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    one.write_bytes(b"prompts")
    two.write_bytes(b"prompts")
    state = RunState(describe_identity(make_config(), [one]), {"a": StageRecord(0, 0, 4, {})})
    check_identity(state, describe_identity(make_config(), [two]))
    two.write_bytes(b"other prompts")
    with pytest.raises(RunMismatchError, match="content of data.train_files: the run began with"):
        check_identity(state, describe_identity(make_config(), [two]))


def test_overrides_of_a_finished_stage_are_compared_key_by_key():
    overrides = index_overrides(["+a.b=1", "c=2", "c=3"])
    record = StageRecord(0, 0, 4, overrides, (), 4, "last_step 4")
    assert record.overrides == {"a.b": "1", "c": "3"}
    same = index_overrides(["a.b=1", "c=3", "data.train_files=moved"])
    check_finished_stage("first", record, same)
    with pytest.raises(RunMismatchError, match="c: stage first was trained with 3, now it is 4"):
        check_finished_stage("first", record, {"a.b": "1", "c": "4"})
    with pytest.raises(
        RunMismatchError, match="d: stage first was trained with its default, now it is 5"
    ):
        check_finished_stage("first", record, {"a.b": "1", "c": "3", "d": "5"})


HOLDER = """
import fcntl, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def hold_lock(output, seconds):
    command = [sys.executable, "-c", HOLDER, str(output / ".lock"), str(seconds)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_runner_waits_for_a_training_that_is_ending(tmp_path):
    holder = hold_lock(tmp_path, 2)
    with lock_output(tmp_path, Console(quiet=True)):
        assert holder.poll() is not None or holder.wait(10) == 0


def test_a_second_runner_is_refused_after_the_timeout(tmp_path, monkeypatch):
    monkeypatch.setattr(run_state, "LOCK_TIMEOUT_S", 0.1)
    holder = hold_lock(tmp_path, 60)
    try:
        with (
            pytest.raises(OutputError, match="another process is writing to"),
            lock_output(tmp_path, Console(quiet=True)),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
