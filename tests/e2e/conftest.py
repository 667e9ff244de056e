"""Real runs: Ray, vLLM, FSDP2 and TransferQueue on a tiny model. Each run takes one to three
minutes on two cores.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest

from verl_pipeline.testing import equivalence


@pytest.fixture(scope="session")
def runs_directory(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def equivalent_runs(runs_directory):
    """verl's sync trainer and ours at staleness 0, seeded, by mode.

    Side by side: half of a run is imports, one process after another, which leave a core idle. Each
    has a Ray of its own whose first job has the same number, so that they would take each other's
    weights if ours named its sockets as verl does.
    """
    modes = ("sync", "one_off_pipeline")
    equivalence.make_overrides(runs_directory, "sync")  # writes model and data, which the two share
    with ThreadPoolExecutor(len(modes)) as executor:
        finished = executor.map(lambda mode: equivalence.train_in_mode(runs_directory, mode), modes)
        return dict(zip(modes, finished, strict=True))


@pytest.fixture(scope="session")
def sync_run(equivalent_runs):
    """What ours is compared with."""
    return equivalent_runs["sync"]
