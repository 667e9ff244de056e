"""verl's configuration composed with our overlays, as a run would."""

import pytest
from hydra import compose, initialize_config_module


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory):
    from verl_pipeline.testing import tiny_run

    directory = tmp_path_factory.mktemp("tiny")
    tiny_run.make_overrides(directory)
    return directory


@pytest.fixture
def composed(tiny_directory):
    """Composes the configuration of a run that works, plus overrides."""
    from verl_pipeline.testing import tiny_run

    def make(*overrides, primary="one_off_pipeline"):
        with initialize_config_module("verl_pipeline.config", version_base=None):
            return compose(
                primary,
                [
                    *tiny_run.make_overrides(tiny_directory),
                    "actor_rollout_ref.rollout.nnodes=1",
                    *overrides,
                ],
            )

    return make
