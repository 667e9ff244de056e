"""A resumed SFT run begins the epoch that follows; one that ends early is named."""

import io
import sys

import pytest
from rich.console import Console

from verl_pipeline.recipes.deepcoder.distillation import distillation
from verl_pipeline.recipes.deepcoder.distillation.distill_config import DistillConfig
from verl_pipeline.recipes.deepcoder.distillation.training_commands import (
    CHECKPOINTS,
    set_ended_data_aside,
)
from verl_pipeline.recipes.deepcoder.distillation.training_run import TrainingFailed, run_training


def write_checkpoint(folder, step):
    checkpoint = folder / CHECKPOINTS / f"global_step_{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "data_0.pt").write_bytes(b"position")
    (folder / CHECKPOINTS / "latest_checkpointed_iteration.txt").write_text(str(step))
    return checkpoint


@pytest.mark.parametrize(
    ("step", "name"), [(8, "data_0.ended"), (6, "data_0.pt")], ids=["epoch's end", "within"]
)
def test_the_position_at_an_epochs_end_is_not_resumed(tmp_path, step, name):
    checkpoint = write_checkpoint(tmp_path, step)
    set_ended_data_aside(tmp_path, step, 4)
    assert [path.name for path in checkpoint.iterdir()] == [name]


def test_a_training_that_ends_early_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(
        distillation,
        "run_training",
        lambda command, folder, variables, **_: write_checkpoint(folder, 8),
    )
    console = Console(file=io.StringIO())
    with pytest.raises(TrainingFailed, match="after update 8 of 12"):
        distillation._train(DistillConfig(), [], tmp_path, 12, console)


def test_the_metrics_of_all_attempts_stay(tmp_path):
    write = "import os; open(os.environ['VERL_FILE_LOGGER_PATH'], 'wb').write({!r})"
    for records in (b'{"step":1}\n{"st', b'{"step":2}\n'):
        command = [sys.executable, "-c", write.format(records)]
        run_training(command, tmp_path, {}, continues_metrics=False)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step":1}\n{"step":2}\n'
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl", "train.log"}
