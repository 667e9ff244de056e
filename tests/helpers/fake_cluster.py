"""A real Ray on nodes of this machine, with CPUs and GPUs that need not exist."""

from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.cluster_utils import Cluster


@contextmanager
def connect(*nodes: tuple[int, int]) -> Iterator[Cluster]:
    """Ray on nodes of (CPUs, GPUs), the first of which is the head."""
    (cpus, gpus), *others = nodes
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": cpus, "num_gpus": gpus, "include_dashboard": False},
    )
    try:
        for cpus, gpus in others:
            cluster.add_node(num_cpus=cpus, num_gpus=gpus)
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
