"""Waiting for the nodes of a launch script, on a cluster of Ray that loses and gains nodes."""

import subprocess
import sys

import pytest
from ray.cluster_utils import Cluster

from tests.helpers.patience import scale_deadline
from tests.helpers.repository import ROOT

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
PROGRAM = ROOT / "examples/two_nodes/wait_for_nodes.py"


@pytest.fixture
def cluster():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield cluster
    cluster.shutdown()


def wait(cluster, count: int, deadline_s: float) -> subprocess.CompletedProcess:
    return subprocess.run(
        [
            *(sys.executable, str(PROGRAM), str(count)),
            *("--address", cluster.address, "--deadline-s", str(deadline_s)),
        ],
        capture_output=True,
        text=True,
        timeout=scale_deadline(300),
    )


def test_it_waits_for_all_nodes_and_no_longer_than_it_may(cluster):
    missing = wait(cluster, 2, 1.0)
    assert missing.returncode == 1
    assert "wait_for_nodes.py: 1 of 2 nodes after 1 s" in missing.stderr
    cluster.add_node(num_cpus=1)
    assert wait(cluster, 2, scale_deadline(60)).returncode == 0
