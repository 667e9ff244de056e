"""The trainer as verl sees it, and its refusal to start half-active."""

import numpy as np
import pytest

from verl_pipeline import plugin
from verl_pipeline.filters import BatchView
from verl_pipeline.findings import Finding, State
from verl_pipeline.trainer.batch import (
    StalenessViolation,
    TrajectoryBatch,
    check_versions,
)
from verl_pipeline.trainer.schedule import DRAINED, Dial
from verl_pipeline.verl_adapter.checks import seam_checks
from verl_pipeline.verl_adapter.checks.seam_checks import NotActive, require_active
from verl_pipeline.verl_adapter.trainers.filtering_trainer import GROUP_RELATIVE


def test_importable_from_the_package_and_registered_with_verl():
    from verl.trainer.ppo.v1 import PPOTrainer, get_trainer_cls

    from verl_pipeline import OneOffPipelineTrainer

    assert issubclass(OneOffPipelineTrainer, PPOTrainer)
    assert get_trainer_cls("one_off_pipeline") is OneOffPipelineTrainer


def test_registration_twice_changes_nothing():
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    before = dict(TRAINER_REGISTRY)
    plugin.register()
    assert before == TRAINER_REGISTRY


def test_a_missing_part_is_named_and_training_refused(monkeypatch):
    seam = Finding("platform", State.MISSING, "verl uses something else", "start the run with verl")
    monkeypatch.setattr(seam_checks, "examine_seams", lambda: [seam])
    with pytest.raises(NotActive, match=r"platform: verl uses something else\. start the run with"):
        require_active()


def test_an_entry_point_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(seam_checks.metadata, "entry_points", lambda group: [])
    with pytest.raises(NotActive, match=r"verl\.plugins: not registered\. install the package"):
        require_active()


def test_the_plugin_module_is_the_entry_point_that_is_examined():
    assert seam_checks.PLUGIN_MODULE == plugin.__name__


def test_every_group_relative_estimator_of_verl_is_known():
    from verl.trainer.ppo.core_algos import AdvantageEstimator

    with_own_baseline = {"gae", "reinforce_plus_plus", "remax"}
    assert {item.value for item in AdvantageEstimator} == GROUP_RELATIVE | with_own_baseline


def test_a_batch_submitted_with_weights_that_are_too_old_is_refused():
    one = np.array([1])
    view = BatchView(["b3p0"], one - 1, one * 1.0, [None], one, one, one > 1)
    batch = TrajectoryBatch(["b3p0_0_0"], np.array([[1, 1]]), view, [{}], 0.0)
    check_versions(batch, 3, expected=1, dial=Dial(DRAINED, 1))
    with pytest.raises(StalenessViolation, match="batch 3 was submitted with v_1, which violates"):
        check_versions(batch, 3, expected=1, dial=Dial(DRAINED, 0))
    with pytest.raises(StalenessViolation, match="b3p0_0_0 was sampled with v_1..v_1, not v_2"):
        check_versions(batch, 3, expected=2, dial=Dial(DRAINED, 1))
