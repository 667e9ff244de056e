"""The warning about old data: once, with what to change."""

from types import SimpleNamespace

import pytest

from verl_pipeline.trainer.off_policy import EFFECTIVE
from verl_pipeline.trainer.pipeline_config import OneOffPipelineConfig
from verl_pipeline.trainer.run_dial import RunDial
from verl_pipeline.verl_adapter.trainers.pipelined_trainer import OneOffPipelineTrainer


def warn(capsys, least, *shares):
    """What is printed for batches with these effective shares; None: not measured."""
    settings = OneOffPipelineConfig(
        weight_sync_mode="in_flight", staleness=4, min_effective_share=least
    )
    trainer = SimpleNamespace(
        settings=settings, dial=RunDial(settings), global_steps=7, _has_warned=False
    )
    for share in shares:
        OneOffPipelineTrainer._warn_of_old_data(
            trainer, {} if share is None else {EFFECTIVE: share}
        )
    return capsys.readouterr().out.splitlines()


def test_it_names_share_limit_and_what_to_change_once(capsys):
    (line,) = warn(capsys, 0.9, 0.95, 0.853, 0.2)
    assert "step 7: the effective sample size of the importance weights is 85.3 % of" in line
    assert "trainer.v1.one_off_pipeline.min_effective_share=0.9" in line
    assert "Lower the staleness (now 4) or the learning rate" in line


@pytest.mark.parametrize("least, shares", [(0.9, [0.9, 1.0]), (0.0, [0.0]), (1.0, [None])])
def test_it_is_silent_within_the_limit_switched_off_or_unmeasured(capsys, least, shares):
    assert warn(capsys, least, *shares) == []
