"""A run goes on without the nodes that it loses, and uses those that join."""

import os

import pytest

from tests.chaos.lost_nodes import lose_nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SEED, NODES = int(os.environ.get("CHAOS_SEED", "1")), int(os.environ.get("CHAOS_NODES", "2"))


def test_nodes_of_replicas_join_and_are_lost(tmp_path):
    lost = lose_nodes(tmp_path / "nodes", NODES, SEED)
    assert len(lost) == NODES and all(len(node.joined_s) <= node.devices for node in lost)
    assert lost[0].joined_s
