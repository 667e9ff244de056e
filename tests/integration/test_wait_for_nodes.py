"""What the launch scripts for several nodes wait with, against a Ray cluster of two nodes."""

import subprocess
import sys
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.helpers.patience import scale_deadline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
SCRIPT = Path(__file__).parents[2] / "examples" / "two_nodes" / "wait_for_nodes.py"


@pytest.fixture
def cluster():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield cluster
    cluster.shutdown()


def start_script(cluster, count, deadline_s):
    words = [str(count), "--address", cluster.address, "--deadline-s", str(deadline_s)]
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_ends_once_the_nodes_are_there_or_names_how_many_are_not(cluster):
    waiting = start_script(cluster, 2, scale_deadline(120))
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=10)
    cluster.add_node(num_cpus=1)
    _out, errors = waiting.communicate(timeout=scale_deadline(120))
    assert waiting.returncode == 0, errors
    too_few = start_script(cluster, 3, 1)
    _out, errors = too_few.communicate(timeout=scale_deadline(120))
    assert too_few.returncode == 1
    assert "wait_for_nodes.py: 2 of 3 nodes after 1 s" in errors
