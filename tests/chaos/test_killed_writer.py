"""Kills within the writes of verl's FSDP engine and torch, a hundred in minutes."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.chaos.engine_writer import train_in_fork
from tests.chaos.killed_run import list_writes
from tests.helpers.written_checkpoints import stand_in_for_queue
from verl_pipeline.testing import tiny_run
from verl_pipeline.verl_adapter.checkpointing.checkpoint_search import find_newest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SEED, KILLS = os.environ.get("CHAOS_SEED", "1"), int(os.environ.get("CHAOS_WRITE_KILLS", "20"))
# A write of the tiny model takes about so long.
WRITE_S = 0.6


@pytest.fixture
def model(tmp_path, monkeypatch):
    stand_in_for_queue(monkeypatch.setattr)
    return tiny_run.write_model(tmp_path / "model")


def merge(folder):
    """verl's own reader, of the newest checkpoint."""
    newest = find_newest(folder)
    target = folder.with_name(f"{folder.name}-merged")
    command = ["-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    places = ["--local_dir", str(newest.folder / "actor"), "--target_dir", str(target)]
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, *command, *places], check=True, env=environment)
    return newest.step, load_file(target / "model.safetensors")


def test_a_writer_killed_at_random_instants_ends_with_the_undisturbed_weights(model, tmp_path):
    dice, folder = random.Random(SEED), tmp_path / "killed" / "checkpoints"
    last_step = 5 * KILLS  # more than are reached
    reached = in_write = 0
    for number in range(1, KILLS + 1):
        writes, delay = dice.randint(0, 2), dice.random() * WRITE_S
        kill, left = (reached + writes if writes else 0, delay), list_writes(folder)
        assert train_in_fork(model, folder, last_step, kill), "it ended before the kill"
        newest = find_newest(folder)
        step = newest.step if newest else 0
        assert step >= reached
        reached = step
        is_within = bool(list_writes(folder) - left)
        in_write += is_within
        place = "within a write" if is_within else "between two"
        print(f"kill {number}: {1000 * delay:.0f} ms after a write began, {place}; complete {step}")
    print(f"{KILLS} kills, {in_write} within a write, seed {SEED}")
    assert not train_in_fork(model, folder, last_step + 1, None)
    whole = tmp_path / "whole" / "checkpoints"
    assert not train_in_fork(model, whole, last_step + 1, None)
    (step, weights), (wanted_step, wanted) = merge(folder), merge(whole)
    assert step == wanted_step == last_step + 1
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)
    assert sorted(path.name for path in Path(folder).iterdir()) == [
        f"global_step_{step}",
        "latest_checkpointed_iteration.txt",
    ]
