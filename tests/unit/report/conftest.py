"""Made-up runs, read once."""

import pytest

from tests.helpers.made_up_run import write_run
from tests.helpers.simulated_run import MadeUpRun


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Folders of runs by name."""
    folder = tmp_path_factory.mktemp("runs")
    made = {
        "ours": MadeUpRun(steps=4, test_every=2),
        "sync": MadeUpRun(steps=4, mode="sync"),
        "killed": MadeUpRun(steps=6, killed_at=100.0),
        "early": MadeUpRun(steps=2, killed_at=10.0),
    }
    for name, run in made.items():
        write_run(folder / name, run)
    return {name: folder / name for name in made}
