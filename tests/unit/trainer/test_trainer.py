"""The trainer as verl sees it, and its refusal to start half-active."""

import pytest

from verl_pipeline import doctor, plugin


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
    monkeypatch.setattr(plugin, "active_seams", lambda: [plugin.Seam("platform", False, "verl uses something else")])
    with pytest.raises(doctor.NotActive, match=r"platform: verl uses something else\. start the run with"):
        doctor.require_active()


def test_an_entry_point_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "entry_points", lambda group: [])
    with pytest.raises(doctor.NotActive, match=r"verl\.plugins: not registered\. install the package"):
        doctor.require_active()
