"""Waits until a Ray cluster has as many nodes as a launch script has started.

    python3 examples/two_nodes/wait_for_nodes.py 2 --address HEAD:6379

A training does not wait for nodes: what is too large for the cluster is refused at once.
"""

import argparse
import sys
import time

import ray

POLL_S = 1.0


def count_nodes() -> int:
    """Nodes that are alive."""
    return sum(node["Alive"] for node in ray.nodes())


def wait_for_nodes(count: int, deadline_s: float) -> bool:
    """Whether the cluster has ``count`` nodes before ``deadline_s`` seconds have passed."""
    end = time.monotonic() + deadline_s
    while count_nodes() < count:
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, help="nodes to wait for")
    parser.add_argument("--address", default="auto", help="of the head, HOST:PORT")
    parser.add_argument("--deadline-s", type=float, default=600.0)
    given = parser.parse_args()
    ray.init(given.address, log_to_driver=False)
    if not wait_for_nodes(given.count, given.deadline_s):
        sys.exit(
            f"wait_for_nodes.py: {count_nodes()} of {given.count} nodes after "
            f"{given.deadline_s:g} s; look for the output of `ray start` on the others"
        )
