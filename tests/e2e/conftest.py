"""Real runs: Ray, vLLM, FSDP2 and TransferQueue on a tiny model. Each run takes one to three
minutes on two cores.
"""

import pytest

from verl_pipeline.testing import equivalence


@pytest.fixture(scope="session")
def runs_directory(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def equivalent_runs(runs_directory):
    """verl's sync trainer and ours at staleness 0, seeded, by mode.

    One after the other: verl names the socket over which weights go to an engine by Ray's job and
    the replica, and the first jobs of two clusters have the same number. Two runs on one machine
    take each other's weights, or wait for ever.
    """
    modes = ("sync", "one_off_pipeline")
    equivalence.make_overrides(runs_directory, "sync")  # writes model and data, which the two share
    return {mode: equivalence.train_in_mode(runs_directory, mode) for mode in modes}


@pytest.fixture(scope="session")
def sync_run(equivalent_runs):
    """What ours is compared with."""
    return equivalent_runs["sync"]
