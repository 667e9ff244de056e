"""A training process: where it runs, and what it is told."""

import sys
import time

from recipes.deepcoder.stages import training_process as child

PROGRAM = "import os, sys; print(os.getcwd()); print(*sys.argv[1:], sep='\\n')"


def test_it_runs_where_its_caller_is_so_that_relative_paths_mean_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(child, "command", lambda words: [sys.executable, "-c", PROGRAM, *words])
    attempt = tmp_path / "attempts" / "1"
    with open(tmp_path / ".lock", "w") as lock:
        training = child.Training(["reward.path=mine.py"], attempt, tmp_path / "tensorboard", lock)
        deadline = time.monotonic() + 60
        while training.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert training.stop() == 0
    directory, *words = training.log.read_text().splitlines()
    assert directory == str(tmp_path)
    assert words[0] == "reward.path=mine.py" and words[-1] == f"hydra.run.dir={attempt}"
