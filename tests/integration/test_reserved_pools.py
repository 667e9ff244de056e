"""The pools of a run on real Ray clusters: placed with verl's classes, or refused by name."""

import random
import re
import time

import pytest
import ray
from ray.util.placement_group import PlacementGroup

from tests.helpers.fake_cluster import connect
from tests.helpers.patience import scale_deadline, wait_until
from tests.helpers.pool_shapes import (
    Shape,
    draw_shape,
    list_groups,
    no_processes,
    remove_groups,
    start_ours,
    start_verls,
)
from tests.unit.verl_adapter.placement.test_slot_placement import fill_nodes
from verl_pipeline.verl_adapter.placement import ray_cluster, reserved_pools
from verl_pipeline.verl_adapter.placement.ray_cluster import NotStarted, read_nodes
from verl_pipeline.verl_adapter.placement.ray_slots import find_shortage, list_pools
from verl_pipeline.verl_adapter.placement.reserved_pools import place_pools

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(autouse=True)
def without_processes(monkeypatch):
    with no_processes(monkeypatch):
        yield


def read_places(group):
    """The nodes of a placement group's bundles, and the bundles."""
    table = ray.util.placement_group_table(group)
    assert table["state"] == "CREATED"
    return set(table["bundles_to_node_id"].values()), list(table["bundles"].values())


def check_placed(shape, started):
    """Each group on one node, with the bundles that verl makes; no group twice, none left over."""
    per_node = min(shape.rollout[1], shape.tensor_parallel)
    for groups, nodes, cpus, devices in (
        (started.trainer, shape.trainer[0], 3, shape.trainer[1]),
        *[(groups, shape.tensor_parallel // per_node, 2, per_node) for groups in started.replicas],
    ):
        assert len(groups) == nodes
        for group in groups:
            where, bundles = read_places(group)
            assert len(where) == 1 and bundles == [{"CPU": cpus, "GPU": 1}] * devices
    assert len(started.replicas) == shape.rollout[0] * shape.rollout[1] // shape.tensor_parallel
    extra = [size for size in (shape.reward, shape.teacher) for _ in range(size[0] if size else 0)]
    for group, (_nodes, devices) in zip(started.others, extra, strict=True):
        where, bundles = read_places(group)
        assert len(where) == 1 and bundles == [{"CPU": 3, "GPU": 1}] * devices
    ids = [group.id.hex() for group in started.list_groups()]
    assert len(set(ids)) == len(ids) and list_groups().keys() == set(ids)


def start_shape(shape, cluster_s):
    """(placed or refused, seconds, the refusal), with all slots free again."""
    free = read_nodes("GPU", free=True)
    start = time.monotonic()
    try:
        started = start_ours(shape, cluster_s)
    except NotStarted as error:
        assert not list_groups()
        return "refused", time.monotonic() - start, str(error)
    seconds = time.monotonic() - start
    check_placed(shape, started)
    remove_groups(free)
    return "placed", seconds, ""


@pytest.fixture(scope="class")
def two_nodes():
    with connect((64, 8), (64, 8)):
        yield


@pytest.mark.usefixtures("two_nodes")
class TestTwoNodes:
    def test_pools_are_placed_which_the_old_order_of_events_did_not(self):
        """verl's classes, replicas first, as this package once started them."""
        shape = Shape((1, 8), (1, 8), 1)
        assert start_verls(shape, 3.0, replicas_first=True) == "waits"
        assert start_shape(shape, 60.0)[0] == "placed"

    def test_a_reward_model_and_a_teacher_and_a_replica_that_spans_nodes(self):
        shape = Shape((1, 4), (2, 4), 8, reward=(1, 2), teacher=(1, 2))
        assert start_shape(shape, 60.0)[0] == "placed"

    @pytest.mark.parametrize(
        ("shape", "missing"),
        [
            (Shape((2, 6), (1, 3), 3), "does not fit is part 1 of 1 of the rollout servers of .*="),
            (Shape((1, 10), (1, 2), 1), r"no node has 30 CPU \+ 10 GPU for one part of the pool"),
        ],
    )
    def test_what_has_no_place_is_named(self, shape, missing):
        outcome, _seconds, message = start_shape(shape, 1.0)
        assert outcome == "refused" and re.search(missing, message), message
        assert message.count(": 64 CPU + 8 GPU") == 2 and "deadlines.cluster_s" in message

    def test_slots_that_another_job_takes_meanwhile(self, monkeypatch):
        """The plan is made again; the groups of the first one are given back."""
        taken: list[PlacementGroup] = []

        def find_and_take(*args):
            found = find_shortage(*args)
            if found is None and not taken:
                taken.append(ray.util.placement_group([{"GPU": 5}], name="another job"))
                assert taken[0].wait(60)
            return found

        monkeypatch.setattr(reserved_pools, "find_shortage", find_and_take)
        monkeypatch.setattr(reserved_pools, "_SETTLE_S", 1.0)
        shape = Shape((1, 8), (1, 2), 2)
        check_placed(shape, start_ours(shape, scale_deadline(60)))


@pytest.mark.slow
def test_an_autoscaler_is_asked_for_all_pools_and_their_place_is_found_when_it_has_grown(
    monkeypatch,
):
    """Nodes come one by one while groups wait, as an autoscaler brings them."""
    ceiling = {"CPU": 132, "GPU": 16}
    monkeypatch.setattr(
        ray_cluster.state.state, "get_max_resources_from_cluster_config", lambda: ceiling
    )
    monkeypatch.setattr(reserved_pools, "REPORT_EVERY_S", 0.1)
    pools = list_pools(Shape((1, 8), (1, 8), 1).make_config(1.0))
    with connect((4, 0)) as cluster:

        def grow(line):
            """Ray starts a node from the main thread only."""
            assert "no place in Ray's cluster" in line
            if any(group["state"] == "PENDING" for group in list_groups().values()):
                cluster.add_node(num_cpus=64, num_gpus=8)

        # The deadline is no autoscaler's.
        groups = place_pools(pools, [], 1.0, grow)
        assert sum(node.devices for node in read_nodes("GPU")) == 16
        (trainer,), replicas = groups["global_pool"], groups["rollout_pool"]
        assert list_groups().keys() == {group.id.hex() for group in [trainer, *replicas]}
        (node,), _bundles = read_places(trainer)
        assert node not in {each for group in replicas for each in read_places(group)[0]}


CLUSTERS = {"1x8": 1, "2x8": 2, "4x8": 4, "3x8 with a reward model": 3}


def list_shapes(nodes, tensor_parallel):
    """Splits of a cluster of 8-GPU nodes."""
    if nodes == 1:
        return [Shape((1, 4), (1, max(4, tensor_parallel)), tensor_parallel)]
    if nodes == 3:
        return [
            Shape((1, 8), (1, 8), tensor_parallel, reward=(1, 8)),
            Shape((2, 4), (1, 8), tensor_parallel, reward=(2, 4)),
        ]
    shapes = [
        Shape((nodes // 2, 8), (nodes // 2, 8), tensor_parallel),
        Shape((nodes - 1, 8), (1, 8), tensor_parallel),
        Shape((nodes, 4), (nodes, 4), tensor_parallel),
    ]
    return list(dict.fromkeys(shapes))


@pytest.mark.slow
@pytest.mark.parametrize("name", CLUSTERS)
def test_pools_that_fill_a_cluster(name, capsys):
    nodes = CLUSTERS[name]
    with connect(*[(96, 8)] * nodes):
        for tensor_parallel in (1, 2, 4, 8):
            for shape in list_shapes(nodes, tensor_parallel):
                # Eight devices for a replica, and four for the trainer, are not in one node.
                fits = nodes > 1 or tensor_parallel < 8
                outcome, seconds, message = start_shape(shape, 60.0 if fits else 1.0)
                verls = [start_verls(shape, 3.0, replicas_first=first) for first in (True, False)]
                with capsys.disabled():
                    print(f"\n| {name} | {shape} | {outcome} | {seconds:.2f} |", *verls, end="")
                assert (outcome == "placed") == fits, message


@pytest.mark.slow
def test_random_pools_on_a_cluster_that_others_use(capsys):
    """50 shapes, on nodes whose slots other jobs hold in part: placed if and only if some placement
    exists, which includes whatever verl's own classes place.
    """
    rng = random.Random(17)
    outcomes = set()
    with connect(*[(64, 8)] * 4):
        everything = read_nodes("GPU")
        for _number in range(50):
            shape = draw_shape(rng)
            others = [hold_slots(rng, node) for node in everything]
            assert all(group.wait(60) for group in others)
            wait_until_left(sum_left(everything, others))
            free = read_nodes("GPU", free=True)
            fits = fill_nodes(list_pools(shape.make_config(1.0)), free)
            outcome, seconds, message = start_shape(shape, 60.0 if fits else 1.0)
            verls = start_verls(shape, 2.0, replicas_first=True)
            with capsys.disabled():
                slots = " ".join(f"{node.devices:g}/{node.cpus:g}" for node in free)
                print(f"\n| {slots} | {shape} | {outcome} | {seconds:.2f} | {verls} |", end="")
            assert (outcome == "placed") == fits, message
            assert fits or verls != "placed"
            outcomes.add(outcome)
            for group in others:
                ray.util.remove_placement_group(group)
            wait_until(lambda: read_nodes("GPU", free=True) == everything, 60, "all to be free")
    assert outcomes == {"placed", "refused"}


def wait_until_left(slots):
    """Until Ray knows that the other jobs hold the rest."""
    wait_until(lambda: sum_slots(read_nodes("GPU", free=True)) == slots, 60, "slots to be taken")


def hold_slots(rng, node):
    """A placement group of another job on a node."""
    bundle = {"CPU": rng.choice([1, 1, 20, 40]), "GPU": rng.choice([0, 0, 1, 2, 4, 5])}
    return ray.util.placement_group(
        [{name: count for name, count in bundle.items() if count}],
        bundle_label_selector=[{"ray.io/node-id": node.node_id}],
    )


def sum_slots(nodes):
    return sum(node.cpus for node in nodes), sum(node.devices for node in nodes)


def sum_left(nodes, groups):
    cpus, devices = sum_slots(nodes)
    bundles = [bundle for group in groups for bundle in group.bundle_specs]
    return (
        cpus - sum(bundle["CPU"] for bundle in bundles),
        devices - sum(bundle.get("GPU", 0) for bundle in bundles),
    )
