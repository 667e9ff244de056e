"""A run that is started in this process must not leave its trainer to other tests."""

import pytest
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY


@pytest.fixture(autouse=True)
def kept_trainers():
    kept = dict(TRAINER_REGISTRY)
    yield
    TRAINER_REGISTRY.clear()
    TRAINER_REGISTRY.update(kept)
