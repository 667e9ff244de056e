"""What a run asks Ray for, and which clusters can hold it."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transfer_queue.controller import TransferQueueController
from transfer_queue.storage.simple_storage import SimpleStorageUnit
from verl.single_controller.ray import ResourcePoolManager

from tests.helpers.thinned import thin_out, thin_out_rows
from verl_pipeline.trainer.pipeline_config import ROLLOUT
from verl_pipeline.verl_adapter.placement.ray_slots import (
    STORAGE_UNITS,
    find_shortage,
    list_requests,
    sum_slots,
)
from verl_pipeline.verl_adapter.placement.slot_placement import NodeSlots, SlotRequest


def make_nodes(*slots):
    return [NodeSlots(f"10.0.0.{rank}", *node) for rank, node in enumerate(slots)]


@pytest.mark.parametrize(
    ("overrides", "slots"),
    thin_out_rows(
        [
            # The controller, one storage unit, 3 CPUs of the trainer, 2 of the rollout server.
            ([], (7, 2)),
            ([f"{STORAGE_UNITS}=8"], (14, 2)),
            (["trainer.n_gpus_per_node=4", f"{ROLLOUT}.n_gpus_per_node=4"], (22, 8)),
            # Rollout servers share the trainer's devices.
            (["trainer.v1.trainer_mode=sync"], (5, 1)),
            (["trainer.v1.trainer_mode=sync_filtered"], (5, 1)),
            (["trainer.v1.trainer_mode=colocate_async"], (5, 1)),
            (["trainer.v1.trainer_mode=separate_async"], (7, 2)),
            (["reward.num_workers=8", f"{ROLLOUT}.agent.num_workers=8"], (7, 2)),
            (["reward.num_workers=3", "reward.reward_manager.name=remote"], (16, 2)),
            (
                [
                    "reward.reward_model.enable=True",
                    "reward.reward_model.enable_resource_pool=True",
                    "reward.reward_model.nnodes=1",
                    "reward.reward_model.n_gpus_per_node=2",
                ],
                (13, 4),
            ),
            (
                [
                    "distillation.enabled=True",
                    "distillation.nnodes=2",
                    "distillation.n_gpus_per_node=1",
                ],
                (13, 4),
            ),
            (["transfer_queue.backend.storage_backend=MooncakeStore"], (6, 2)),
        ],
        keep=5,
    ),
)
def test_slots_of_a_run(composed, overrides, slots):
    assert sum_slots(list_requests(composed(*overrides))) == slots


def test_a_replica_that_spans_nodes_is_a_group_a_node(composed):
    config = composed(
        f"{ROLLOUT}.nnodes=4",
        f"{ROLLOUT}.n_gpus_per_node=8",
        f"{ROLLOUT}.tensor_model_parallel_size=8",
        f"{ROLLOUT}.pipeline_model_parallel_size=2",
    )
    rollout = list_requests(config)[-1]
    assert (rollout.count, rollout.cpus, rollout.devices) == (4, 16, 8)


def test_a_replica_with_disaggregated_prefill_is_its_prefill_and_decode_servers(composed):
    config = composed(
        f"{ROLLOUT}.n_gpus_per_node=8",
        f"{ROLLOUT}.tensor_model_parallel_size=2",
        f"{ROLLOUT}.disaggregation.enabled=True",
        f"{ROLLOUT}.disaggregation.decode_replicas=2",
        f"{ROLLOUT}.disaggregation.decode_tensor_model_parallel_size=1",
    )
    rollout = list_requests(config)[-1]
    assert (rollout.count, rollout.cpus, rollout.devices) == (2, 8, 4)


def test_verl_and_transfer_queue_ask_for_what_we_count():
    assert ResourcePoolManager.max_colocate_count == 3
    for actor in (TransferQueueController, SimpleStorageUnit):
        assert actor._default_options["num_cpus"] == 1


@pytest.mark.parametrize(
    "nodes",
    thin_out(
        [
            [(7, 2)],
            # Devices on two nodes, one pool each, whichever TransferQueue's storage unit leaves
            # free.
            [(4, 1), (3, 1)],
            [(3, 1), (4, 1)],
            [(5, 1), (4, 1), (0, 0)],
        ],
        keep=2,
    ),
)
def test_nodes_that_can_hold_a_run(composed, nodes):
    assert find_shortage(list_requests(composed()), make_nodes(*nodes), "GPU") is None


@pytest.mark.parametrize(
    ("nodes", "shortage"),
    thin_out_rows(
        [
            ([(6, 2)], "CPU slots: 7 needed, 6 there"),
            ([(1, 2)], "CPU slots: 7 needed, 1 there"),
            ([(0, 0)], "CPU slots: 7 needed, 0 there; GPU slots: 2 needed, 0 there"),
            ([(64, 1)], "GPU slots: 2 needed, 1 there"),
            # The trainer's three CPUs are on the node of its device.
            (
                [(4, 0), (2, 1), (2, 1)],
                "no node has 3 CPU + 1 GPU for one part of the pool of trainer",
            ),
            ([(6, 0), (2, 2)], "no node has 3 CPU + 1 GPU"),
            (
                [(2, 0), (4, 2), (1, 0)],
                "7 CPU and 2 GPU slots: there, but spread over too many nodes",
            ),
            # TransferQueue puts its first storage unit on the first node, whatever is there.
            (
                [(0, 0), (5, 1), (4, 1)],
                "node 10.0.0.0 has no slot for its share of TransferQueue's",
            ),
        ],
        keep=3,
    ),
)
def test_nodes_that_cannot_hold_a_run(composed, nodes, shortage):
    found = find_shortage(list_requests(composed()), make_nodes(*nodes), "GPU")
    assert found is not None and shortage in found


def can_place(requests, nodes):
    """Whether one of all placements holds the groups."""
    groups = [request for request in requests for _ in range(request.count)]
    for places in product(range(len(nodes)), repeat=len(groups)):
        left = list(nodes)
        for place, group in zip(places, groups, strict=True):
            left[place] = left[place].take(group)
        if all(node.cpus >= 0 and node.devices >= 0 for node in left):
            return True
    return False


requests_of_pools = st.lists(
    st.builds(
        SlotRequest,
        who=st.just("pool"),
        count=st.integers(0, 2),
        cpus=st.integers(0, 4),
        devices=st.integers(0, 3),
    ),
    min_size=1,
    max_size=3,
)
small_nodes = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4)), min_size=1, max_size=3)


@settings(max_examples=300, deadline=None)
@given(requests_of_pools, small_nodes)
def test_what_is_refused_is_what_no_placement_holds(requests, nodes):
    found = find_shortage(requests, make_nodes(*nodes), "GPU")
    assert (found is None) == can_place(requests, make_nodes(*nodes)), found


def test_a_large_cluster_is_answered_at_once():
    pools = [SlotRequest("trainer", 64, 24, 8), SlotRequest("rollout", 512, 2, 1)]
    nodes = make_nodes(*[(48 - rank % 3, 8) for rank in range(128)])
    assert find_shortage(pools, nodes, "GPU") is None
