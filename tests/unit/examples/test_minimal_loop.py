"""The loop for reading: its schedule, its learning, and the file as a user runs it."""

import multiprocessing
import subprocess
import sys
import threading

import pytest
import torch

from examples import minimal_loop
from tests.helpers.repository import ROOT
from verl_pipeline.trainer.schedule import Dial, fill_pipeline, run_step

STEPS = 4


@pytest.fixture
def small_work(monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(minimal_loop, "PROMPTS", 4)
    monkeypatch.setattr(minimal_loop, "LIMIT", 8)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("staleness", "versions"), [(0, [0, 1, 2, 3]), (1, [0, 0, 1, 2])])
def test_each_batch_has_the_version_of_the_schedule(small_work, capsys, staleness, versions):
    ours, theirs = multiprocessing.Pipe()
    rollout = threading.Thread(target=minimal_loop.run_rollout, args=(theirs,))
    rollout.start()
    try:
        assert ours.recv() == "ready"
        loop = minimal_loop.Loop(ours, Dial("drained", staleness))
        fill_pipeline(loop, trained_version=0, held_batches=set(), dial=loop.dial, last_step=STEPS)
        for k in range(1, STEPS + 1):
            run_step(loop, k, dial=loop.dial, last_step=STEPS)
    finally:
        ours.send(None)
        rollout.join()
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.rsplit("v_", 1)[1]) for line in lines] == versions
    assert [number for number, _began, _ended in loop.trained] == [1, 2, 3, 4]
    assert len(minimal_loop.draw(loop).splitlines()) == 2


def test_training_on_a_batch_makes_its_good_responses_likelier(small_work):
    loop = minimal_loop.Loop(multiprocessing.Pipe()[0], Dial("drained", 0))
    rewards = []
    for number in range(12):
        batch = minimal_loop.sample_batch(loop.policy, 1, number)
        rewards.append(float(batch.rewards.mean()))
        loop._update(batch)
    assert rewards[-1] > rewards[0] + 0.1


@pytest.mark.slow
def test_the_file_runs_as_it_is():
    found = subprocess.run(
        [sys.executable, ROOT / "examples" / "minimal_loop.py"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("step 20") == 2
    assert "times as fast" in found.stdout
