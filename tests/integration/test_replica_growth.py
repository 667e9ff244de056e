"""Places for replicas on nodes of a real Ray that join and go."""

from types import SimpleNamespace

import pytest
import ray
from hydra import compose, initialize_config_module
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tests.helpers.fake_cluster import connect
from tests.helpers.patience import wait_until
from verl_pipeline.trainer.pipeline_config import ROLLOUT
from verl_pipeline.verl_adapter.rollout import replica_growth
from verl_pipeline.verl_adapter.rollout.replica_growth import (
    ReplicaPlaces,
    are_placed,
    remove_groups,
)
from verl_pipeline.verl_adapter.rollout.replica_restart import DevicesGone, ReplicaRestart

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]


def test_a_place_is_granted_once_a_node_has_room_and_another_one_if_that_node_goes(monkeypatch):
    monkeypatch.setattr(replica_growth, "get_resource_name", lambda: "GPU")
    with initialize_config_module("verl_pipeline.config", version_base=None):
        config = compose("one_off_pipeline", ["+verl_pipeline=cpu", f"{ROLLOUT}.nnodes=1"])
    with connect((8, 0)) as cluster:
        places = ReplicaPlaces(config)
        assert places.take() is None
        node = cluster.add_node(num_cpus=2, num_gpus=1)
        first = wait_until(places.take, 60, "the first place")
        assert places.take() is None and are_placed(first)
        cluster.remove_node(node, allow_graceful=False)
        wait_until(lambda: not are_placed(first), 60, "the loss of the node to be known")
        remove_groups(first)
        cluster.add_node(num_cpus=4, num_gpus=2)
        second, third = (wait_until(places.take, 60, "a place on the other node") for _ in range(2))
        assert are_placed(second) and are_placed(third)
        assert places.take() is None
        places.give_up()
        remove_groups(second)
        wait_until(places.take, 60, "the slots that were given back")


class Server:
    """A rollout server: Ray knows it by a name."""

    def answer(self):
        return "here"


def start_server(groups):
    strategy = PlacementGroupSchedulingStrategy(groups[0])
    actor = ray.remote(Server).options(name="server 1", scheduling_strategy=strategy)
    server = actor.remote()
    assert ray.get(server.answer.remote(), timeout=60) == "here"
    return server


def test_a_replica_of_a_node_that_went_leaves_its_names_to_its_successor(monkeypatch):
    monkeypatch.setattr(replica_growth, "get_resource_name", lambda: "GPU")
    with initialize_config_module("verl_pipeline.config", version_base=None):
        config = compose("one_off_pipeline", ["+verl_pipeline=cpu", f"{ROLLOUT}.nnodes=1"])
    publisher = SimpleNamespace(is_storing=lambda _worker: False)
    with connect((8, 0)) as cluster:
        places = ReplicaPlaces(config)
        node = cluster.add_node(num_cpus=4, num_gpus=1)
        groups = wait_until(places.take, 60, "the first place")
        pool = SimpleNamespace(pgs=groups)
        dead = SimpleNamespace(servers=[start_server(groups)], workers=[], resource_pool=pool)
        cluster.remove_node(node, allow_graceful=False)
        wait_until(lambda: not are_placed(groups), 60, "the loss of the node to be known")
        with pytest.raises(DevicesGone):
            ReplicaRestart(None, publisher, None).start(1, dead)
        cluster.add_node(num_cpus=4, num_gpus=1)
        start_server(wait_until(places.take, 60, "a place on the other node"))
