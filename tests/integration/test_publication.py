"""Weights are published once and loaded when a replica likes, over real gloo and Ray actors."""

import asyncio

import pytest
import ray
import torch

from tests.helpers.patience import scale_deadline, wait_until
from tests.helpers.publishing_pool import (
    TENSORS,
    Replica,
    TrainerGroup,
    get_held,
    make_publisher,
    make_weights,
    wait_for_tensor,
)
from verl_pipeline.trainer.deadlines import DeadlineExceeded
from verl_pipeline.trainer.pipeline_config import Deadlines
from verl_pipeline.verl_adapter.rollout.replica_probe import RolloutServerDead
from verl_pipeline.verl_adapter.weights.weight_loading import load_weights, make_replica_actors
from verl_pipeline.weight_sync.buckets import WeightSyncError
from verl_pipeline.weight_sync.comparison import WeightsDiffer

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module", params=["one node", "two nodes"])
def pool(cluster, request):
    """Two trainer ranks and two replicas of two ranks each; and the process that stores."""
    replicas = [Replica(workers=2), Replica(workers=2)]
    group = TrainerGroup(2, is_local=request.param == "one node")
    publisher = make_publisher(replicas, group, versions=3, syncs=100)
    return publisher, replicas, (group if request.param == "one node" else replicas[0]).workers[0]


@pytest.fixture
def publisher(pool):
    """The pool's, with nothing stored."""
    publisher, _replicas, storing = pool
    for version in ray.get(storing.list_stored.remote()):
        publisher.drop(version)
    return publisher


def load(replica, version, request=None, **deadlines):
    return asyncio.run(load_weights(replica, version, Deadlines(**deadlines), request))


def assert_holds(replica, version):
    held, weights = get_held(replica)
    assert held == version and weights.keys() == make_weights(version).keys()
    assert all(torch.equal(weights[name], one) for name, one in make_weights(version).items())


def test_replicas_load_different_versions_at_different_times_while_others_are_published(
    pool, publisher
):
    _publisher, replicas, _storing = pool
    one, two = publisher.replicas
    metrics = publisher.publish(1)
    assert metrics["pipeline/weight_sync/bytes"] == TENSORS * 15 * 20 * 4
    load(one, 1)
    assert_holds(replicas[0], 1)
    assert get_held(replicas[1])[0] != 1
    slow = replicas[1].workers[0]
    ray.get(slow.stop_loading.remote())

    async def load_while_others_are_published():
        loading = asyncio.create_task(load_weights(two, 1, Deadlines()))
        await asyncio.to_thread(wait_for_tensor, slow)
        for version in (2, 3):  # whatever the replicas do
            await asyncio.to_thread(publisher.publish, version)
        publisher.drop(1)
        await load_weights(one, 3, Deadlines())
        await slow.go_on_loading.remote()
        await loading

    asyncio.run(load_while_others_are_published())
    assert_holds(replicas[0], 3)
    assert_holds(replicas[1], 1)
    load(two, 2)
    assert_holds(replicas[1], 2)
    publisher.publish(4)  # in the memory of v_1
    load(two, 4)
    assert_holds(replicas[1], 4)
    load(one, 2)
    assert_holds(replicas[0], 2)


def test_readings_agree_unless_the_store_is_damaged(pool, publisher):
    _publisher, replicas, _storing = pool
    one, two = publisher.replicas
    publisher.publish(5)
    request = publisher.take_request()
    readings = load(one, 5, request)
    publisher.fingerprints.compare_readings(5, {one.name: readings})
    assert publisher.fingerprints.take_metrics() == {
        "pipeline/weights/checked_tensors": TENSORS,
        "pipeline/weights/unchecked_tensors": 0,
    }
    ray.get(replicas[1].workers[1].damage.remote(5))
    readings = load(two, 5, request)
    with pytest.raises(WeightsDiffer, match=r"^rollout replica 1 at \S+ does not hold v_5 .*: w4:"):
        publisher.fingerprints.compare_readings(5, {two.name: readings})


def test_a_version_that_is_not_stored_is_named(publisher):
    publisher.publish(6)
    with pytest.raises(
        WeightSyncError,
        match=r"replica 0 at \S+ could not load v_7, .*half loaded: v_7 is not in this node's host "
        r"memory, which holds .*v_6",
    ):
        load(publisher.replicas[0], 7)


def test_no_more_versions_than_there_is_room_for(publisher):
    for version in (11, 12, 13):
        publisher.publish(version)
    with pytest.raises(
        WeightSyncError,
        match=r"v_14 is not stored on the node of .+: no place for v_14: "
        r"v_11, v_12, v_13 are stored, and 3 is the most",
    ):
        publisher.publish(14)
    publisher.drop(11)
    publisher.publish(14)  # the trainer was not held up, and goes on


def test_memory_that_is_too_small_is_said_before_anything_is_sent(publisher):
    publisher.check_memory(1 << 20)
    with pytest.raises(
        WeightSyncError,
        match=r"the node of .*: 3 versions .* of 4096.0 GiB each need 12288.0 GiB"
        " of host memory, .*weight_sync_mode=drained",
    ):
        publisher.check_memory(1 << 42)


def test_a_load_that_hangs_ends_with_its_name(pool, publisher):
    _publisher, replicas, _storing = pool
    publisher.publish(21)
    ray.get(replicas[1].workers[0].stop_loading.remote())
    with pytest.raises(DeadlineExceeded, match=r"load of v_21 by rollout replica 1 at \S+: not"):
        load(publisher.replicas[1], 21, weight_sync_s=0.2)
    ray.get(replicas[1].workers[0].go_on_loading.remote())
    wait_until(lambda: get_held(replicas[1])[0] == 21, 30, "the load")


@pytest.mark.parametrize("victim", ["worker", "server"])
def test_a_replica_that_dies_half_loaded_is_named(victim):
    replica = Replica()
    publisher = make_publisher([replica], TrainerGroup(1))
    publisher.publish(1)
    ray.get(replica.workers[0].stop_loading.remote())

    async def kill_half_way():
        deadlines = Deadlines(health_check_every_s=0.1, health_check_s=1.0)
        loading = asyncio.create_task(load_weights(publisher.replicas[0], 1, deadlines))
        await asyncio.to_thread(wait_for_tensor, replica.workers[0])
        ray.kill((replica.workers if victim == "worker" else replica.servers)[0])
        await asyncio.wait_for(loading, scale_deadline(60))

    with pytest.raises(
        RolloutServerDead, match=r"^rollout replica 0 at \S+, while it loaded v_1, (died|is dead): "
    ):
        asyncio.run(kill_half_way())


def test_a_leader_that_dies_meanwhile_is_named_and_leaves_no_memory():
    replica = Replica()
    (leader,) = replica.workers
    group = TrainerGroup(1, timeout_s=5.0, is_local=False)
    publisher = make_publisher([replica], group)
    publisher.publish(1)
    assert not ray.get(leader.has_named_memory.remote())
    ray.get(leader.die_at_next_tensor.remote())
    with pytest.raises(
        RolloutServerDead,
        match=r"^the node of rollout replica 0 at \S+ .*the process that stores v_2 ended: ",
    ):
        publisher.publish(2)


@pytest.mark.parametrize("when", ["before", "while it stores"])
@pytest.mark.parametrize("victim", [0, 1])
def test_the_other_nodes_get_what_a_dead_one_cannot_store(when, victim, capsys):
    """Three nodes; also that the trainer's other rank is not left in a gather."""
    replicas = [Replica(node=f"node {number}") for number in range(3)]
    group = TrainerGroup(2, timeout_s=10.0, is_local=False)
    publisher = make_publisher(replicas, group)
    publisher.publish(1)
    (dying,) = replicas[victim].workers
    if when == "before":
        ray.kill(dying)
    else:
        ray.get(dying.die_at_next_tensor.remote())
    for version in (2, 3):
        publisher.publish(version)
        for number, replica in enumerate(replicas):
            if number != victim:
                load(publisher.replicas[number], version)
                assert_holds(replica, version)
    assert f"no version reaches the node of rollout replica {victim}" in capsys.readouterr().out
    publisher.drop(1)
    publisher.publish(4)


def add(publisher, replica):
    """Let a replica load what is published; returns what it is loaded by."""
    actors = make_replica_actors("vllm", 1, replica, "127.0.0.1:1")
    publisher.add_workers(replica.workers, actors.name)
    return actors


def test_a_node_that_joins_stores_what_is_published_from_then_on(capsys):
    """Also if a node is lost meanwhile, one that has not stored anything yet, and the first one."""
    first = Replica(node="node 0")
    publisher = make_publisher([first], TrainerGroup(2, timeout_s=10.0, is_local=False))
    publisher.publish(1)
    late = Replica(workers=2, node="node 1")
    actors = add(publisher, late)
    assert publisher.find_first_version(late.workers) is None
    publisher.publish(2)
    assert publisher.find_first_version(late.workers) == 2
    for version, replica, loads in ((2, late, actors), (2, first, publisher.replicas[0])):
        load(loads, version)
        assert_holds(replica, version)
    gone = Replica(node="node 2")
    add(publisher, gone)
    again = Replica(node="node 0")
    for replica in (gone, first):
        ray.kill(replica.workers[0])
    publisher.publish(3)
    load(actors, 3)
    assert_holds(late, 3)
    with pytest.raises(WeightSyncError, match="no weights are sent to node node 2 any more"):
        publisher.find_first_version(gone.workers)
    actors = add(publisher, again)  # the first node's memory went with its leader
    publisher.publish(4)
    load(actors, 4)
    assert_holds(again, 4)
    publisher.drop(2)
    publisher.publish(5)
    output = capsys.readouterr().out
    assert "no version reaches the node of rollout replica 0" in output


def test_a_node_without_room_for_the_versions_does_not_join():
    first = Replica(node="node 0")
    publisher = make_publisher([first], TrainerGroup(1, is_local=False))
    publisher._transport.bytes_per_version = 1 << 42
    with pytest.raises(WeightSyncError, match=r"the node of rollout replica 1 .*12288.0 GiB"):
        add(publisher, Replica(node="node 1"))
    publisher.publish(1)


def test_another_node_is_refused_if_nothing_is_sent_between_nodes():
    publisher = make_publisher([Replica()], TrainerGroup(1))
    with pytest.raises(WeightSyncError, match="the run began on one node; set .*max_replicas to"):
        add(publisher, Replica(node="another node"))
