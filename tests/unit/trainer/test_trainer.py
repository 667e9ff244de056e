"""The trainer as verl sees it, and its refusal to start half-active."""

import pytest
from transfer_queue import KVBatchMeta

from verl_pipeline import doctor, plugin
from verl_pipeline.trainer.batch import StalenessViolation, check_versions


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
    monkeypatch.setattr(
        plugin, "active_seams", lambda: [plugin.Seam("platform", False, "verl uses something else")]
    )
    with pytest.raises(
        doctor.NotActive, match=r"platform: verl uses something else\. start the run with"
    ):
        doctor.require_active()


def test_an_entry_point_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "entry_points", lambda group: [])
    with pytest.raises(
        doctor.NotActive, match=r"verl\.plugins: not registered\. install the package"
    ):
        doctor.require_active()


def test_every_group_relative_estimator_of_verl_is_known():
    from verl.trainer.ppo.core_algos import AdvantageEstimator

    from verl_pipeline.trainer.filtering import GROUP_RELATIVE

    alone = {"gae", "reinforce_plus_plus", "remax"}
    assert {estimator.value for estimator in AdvantageEstimator} == GROUP_RELATIVE | alone


def test_a_batch_submitted_with_weights_that_are_too_old_is_refused():
    tags = [{"min_global_steps": 1, "max_global_steps": 1}]
    batch = KVBatchMeta(partition_id="train", keys=["b3p0_0_0"], tags=tags)
    check_versions(batch, 3, expected=1, staleness=1)
    with pytest.raises(
        StalenessViolation, match="batch 3 was submitted with v_1, outside staleness 0"
    ):
        check_versions(batch, 3, expected=1, staleness=0)
    with pytest.raises(StalenessViolation, match="b3p0_0_0 was sampled with v_1..v_1, not v_2"):
        check_versions(batch, 3, expected=2, staleness=1)
