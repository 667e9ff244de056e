"""Which node holds which group: as another kind of search says, and whole nodes for the trainer."""

from collections import Counter
from functools import cache
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_pipeline.verl_adapter.placement import slot_placement
from verl_pipeline.verl_adapter.placement.slot_placement import (
    NodeSlots,
    NoPlace,
    Place,
    SlotRequest,
    place_groups,
)


def make_nodes(*slots):
    return [
        NodeSlots(f"10.0.0.{rank}", cpus, devices, f"id{rank}")
        for rank, (cpus, devices) in enumerate(slots)
    ]


def find_nodes(requests, nodes):
    """Each group's request and the id of its node, in the order of placement."""
    places = place_groups(requests, nodes)
    assert not isinstance(places, NoPlace), places
    found = [(place.request, place.node.node_id) for place in places if place.node]
    assert len(found) == len(places)
    return found


def fill_nodes(requests, nodes):
    """Whether the nodes hold all groups: node after node, each with any number of each kind."""
    counts = tuple(request.count for request in requests)

    @cache
    def fill(rank, left):
        if not any(left):
            return True
        if rank == len(nodes):
            return False
        for taken in product(*[range(count + 1) for count in left]):
            both = list(zip(taken, requests, strict=True))
            cpus = sum(count * request.cpus for count, request in both)
            devices = sum(count * request.devices for count, request in both)
            if cpus <= nodes[rank].cpus and devices <= nodes[rank].devices:
                rest = tuple(have - count for have, count in zip(left, taken, strict=True))
                if fill(rank + 1, rest):
                    return True
        return False

    return fill(0, counts)


def check_places(requests, nodes):
    """Every group has a node, the largest first, and no node holds more than it has."""
    left = {node.node_id: node for node in nodes}
    found = find_nodes(requests, nodes)
    for request, node_id in found:
        left[node_id] = left[node_id].take(request)
    assert all(node.cpus >= 0 and node.devices >= 0 for node in left.values())
    groups = [request for request, _node_id in found]
    assert Counter(groups) == Counter({request: request.count for request in requests})
    sizes = [(request.devices, request.cpus) for request in groups]
    assert sizes == sorted(sizes, reverse=True)


pools = st.lists(
    st.builds(
        SlotRequest,
        who=st.sampled_from(["trainer", "rollout", "reward", "teacher"]),
        count=st.integers(0, 4),
        cpus=st.integers(0, 6),
        devices=st.integers(0, 4),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda request: request.who,
)
some_nodes = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 8)), min_size=1, max_size=4)


@settings(max_examples=300, deadline=None)
@given(pools, some_nodes, st.randoms())
def test_groups_are_placed_if_and_only_if_the_nodes_hold_them(requests, slots, random):
    nodes = make_nodes(*slots)
    places = place_groups(requests, nodes)
    assert isinstance(places, NoPlace) != fill_nodes(requests, nodes)
    if isinstance(places, NoPlace):
        assert places.request in requests and 1 <= places.number <= places.request.count
        return
    check_places(requests, nodes)
    # Ray lists nodes in any order.
    assert place_groups(requests, random.sample(nodes, len(nodes))) == places


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
@pytest.mark.parametrize("nodes", [2, 4, 32])
def test_the_trainer_gets_whole_nodes(nodes, tp):
    trainer = SlotRequest("trainer", nodes // 2, 24, 8)
    rollout = SlotRequest("rollout", nodes * 4 // tp, 2 * tp, tp)
    used: dict[SlotRequest, set[str]] = {trainer: set(), rollout: set()}
    for request, node_id in find_nodes([rollout, trainer], make_nodes(*[(128, 8)] * nodes)):
        used[request].add(node_id)
    assert len(used[trainer]) == nodes // 2 and not used[trainer] & used[rollout]


def test_a_trainer_on_half_nodes_leaves_whole_nodes():
    found = find_nodes(
        [SlotRequest("trainer", 2, 12, 4), SlotRequest("rollout", 1, 16, 8)],
        make_nodes((64, 8), (64, 8)),
    )
    assert [node_id for _request, node_id in found] == ["id0", "id1", "id1"]


def test_what_has_no_place_is_named():
    found = place_groups(
        [SlotRequest("trainer", 1, 24, 8), SlotRequest("rollout servers", 4, 8, 4)],
        make_nodes((64, 8), (64, 7), (64, 7), (64, 2)),
    )
    assert isinstance(found, NoPlace)
    assert found.describe("GPU") == "part 3 of 4 of the rollout servers (8 CPU + 4 GPU)"


def test_a_search_that_is_too_long_leaves_the_choice_to_ray(monkeypatch):
    monkeypatch.setattr(slot_placement, "_LONGEST_SEARCH", 0)
    rollout = SlotRequest("rollout", 2, 2, 1)
    places = place_groups([rollout], make_nodes((4, 2)))
    assert places == [Place(rollout, None)] * 2


def test_a_cluster_of_a_thousand_devices_is_planned_at_once():
    requests = [SlotRequest("trainer", 64, 24, 8), SlotRequest("rollout", 512, 2, 1)]
    nodes = make_nodes(*[(48 - rank % 3, 8) for rank in range(128)])
    check_places(requests, nodes)
