"""A training process: its working directory and its arguments."""

from tests.helpers.patience import wait_until
from verl_pipeline.recipes.deepcoder.stages import training_process

PROGRAM = "import os, sys; print(os.getcwd()); print(*sys.argv[1:], sep='\\n')"


def test_it_runs_in_the_callers_directory_so_that_relative_paths_stay_valid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training_process, "PROGRAM", ("-c", PROGRAM))
    attempt = tmp_path / "attempts" / "1"
    with open(tmp_path / ".lock", "w") as lock:
        training = training_process.TrainingProcess(
            ["reward.path=mine.py"], attempt, tmp_path / "tensorboard", lock
        )
        wait_until(lambda: training.read_exit_code() is not None, 60, "the training to end")
        assert training.stop_tree() == 0
    directory, *arguments = training.log.read_text().splitlines()
    assert directory == str(tmp_path)
    assert arguments[0] == "reward.path=mine.py"
