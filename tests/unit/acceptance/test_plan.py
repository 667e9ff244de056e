"""The test's sizes fit every shape of pools that the user may have; our checks and verl's agree."""

import pytest
from hydra import compose, initialize_config_module
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from verl_pipeline.acceptance import place
from verl_pipeline.acceptance.plan import (
    SAMPLES,
    list_default_pools,
    list_overrides,
    make_plan,
)
from verl_pipeline.verl_adapter.checks.check_list import examine_run

ROLLOUT = "actor_rollout_ref.rollout"
MEGATRON = "actor_rollout_ref.actor.megatron"
ULYSSES = "actor_rollout_ref.actor.ulysses_sequence_parallel_size"
POWERS = st.sampled_from([1, 2, 4, 8, 16])


def make_config(**sizes: object):
    config = OmegaConf.create({})
    for field, value in sizes.items():
        OmegaConf.update(config, field, value)
    return config


@given(
    nodes=st.integers(1, 8),
    devices=st.integers(1, 8),
    rollout_devices=st.integers(1, 64),
    tensor=st.one_of(POWERS, st.sampled_from([3, 6])),
    stages=st.integers(1, 4),
    trainer_tensor=POWERS,
    trainer_stages=st.integers(1, 4),
    virtual=st.one_of(st.none(), st.integers(1, 3)),
    ulysses=POWERS,
)
def test_all_sizes_divide_what_they_split(
    nodes,
    devices,
    rollout_devices,
    tensor,
    stages,
    trainer_tensor,
    trainer_stages,
    virtual,
    ulysses,
):
    config = make_config(
        **{
            "trainer.nnodes": nodes,
            "trainer.n_gpus_per_node": devices,
            f"{ROLLOUT}.nnodes": 1,
            f"{ROLLOUT}.n_gpus_per_node": rollout_devices,
            f"{ROLLOUT}.tensor_model_parallel_size": tensor,
            f"{ROLLOUT}.pipeline_model_parallel_size": stages,
            f"{MEGATRON}.tensor_model_parallel_size": trainer_tensor,
            f"{MEGATRON}.pipeline_model_parallel_size": trainer_stages,
            f"{MEGATRON}.virtual_pipeline_model_parallel_size": virtual,
            ULYSSES: ulysses,
        }
    )
    plan, ranks = make_plan(config), nodes * devices
    for split in (tensor, trainer_tensor, ulysses):
        assert plan.sizes.heads % split == 0
    assert plan.sizes.vocabulary_divisor % tensor == plan.sizes.vocabulary_divisor % trainer_tensor
    assert plan.sizes.vocabulary_divisor % tensor == 0
    assert plan.sizes.layers % stages == plan.sizes.layers % (trainer_stages * (virtual or 1)) == 0
    assert plan.prompts * SAMPLES % ranks == 0 and plan.prompts >= rollout_devices
    assert plan.prompts * SAMPLES // ranks % plan.micro_batch == 0
    # Never more than what fits the ranks and gives each replica a prompt.
    assert plan.prompts <= max(4, rollout_devices) + ranks


@pytest.mark.parametrize("value", ["four", 0, -1, 10**9, None, "${nowhere}", True, 2.5])
def test_a_wrong_size_is_left_to_the_checks_of_the_run(value):
    plan = make_plan(make_config(**{"trainer.n_gpus_per_node": value, f"{ROLLOUT}.nnodes": value}))
    assert plan.prompts == 4


SHAPES = [
    ["+verl_pipeline=cpu"],
    pytest.param(
        ["+verl_pipeline=cpu", "trainer.n_gpus_per_node=2", f"{ROLLOUT}.nnodes=1"],
        marks=pytest.mark.slow,
    ),
    [
        "trainer.n_gpus_per_node=6",
        f"{ROLLOUT}.nnodes=1",
        f"{ROLLOUT}.n_gpus_per_node=8",
        f"{ROLLOUT}.tensor_model_parallel_size=8",
        f"{ROLLOUT}.name=vllm",
    ],
    [
        "trainer.nnodes=3",
        "trainer.n_gpus_per_node=8",
        ULYSSES + "=4",
        f"{ROLLOUT}.nnodes=5",
        f"{ROLLOUT}.name=sglang",
        "algorithm.adv_estimator=gae",
        "critic.ppo_micro_batch_size_per_gpu=7",
        "actor_rollout_ref.actor.use_kl_loss=True",
        "critic.model.tokenizer_path=/nowhere",
        f"{ROLLOUT}.multi_turn.enable=True",
        f"{ROLLOUT}.multi_turn.tool_config_path=/nowhere",
        f"{ROLLOUT}.n=16",
    ],
    [
        "model_engine=megatron",
        "trainer.n_gpus_per_node=8",
        f"{ROLLOUT}.nnodes=1",
        f"{ROLLOUT}.name=vllm",
        f"{MEGATRON}.tensor_model_parallel_size=4",
        f"{MEGATRON}.pipeline_model_parallel_size=2",
    ],
]


@pytest.mark.medium
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: " ".join(shape)[:40])
def test_the_settings_pass_our_checks_and_verls(tmp_path, shape):
    keys = {override.lstrip("+").partition("=")[0] for override in shape}
    with initialize_config_module("verl_pipeline.config", version_base=None):
        users = compose("one_off_pipeline", shape)
        shape = [*shape, *list_default_pools(users, keys)]
        users = compose("one_off_pipeline", shape)
        plan = make_plan(users)
        place.write_inputs(plan, tmp_path)
        config = compose("one_off_pipeline", [*shape, *list_overrides(users, plan, tmp_path)])
    # Whether this machine is the one that trains is not the question.
    report = examine_run(config, skip=("device",))
    assert [*report.errors, *report.out_of_reach] == []
    assert config.trainer.n_gpus_per_node == users.trainer.n_gpus_per_node
    assert config.actor_rollout_ref.rollout.n == SAMPLES
    assert str(tmp_path) in config.actor_rollout_ref.model.path


def test_one_rank_and_one_replica_are_the_pools_of_a_command_without_any():
    config = make_config(**{f"{ROLLOUT}.nnodes": 0})
    assert f"++{ROLLOUT}.nnodes=1" in list_default_pools(config, [])
    given = ["trainer.n_gpus_per_node", f"{ROLLOUT}.n_gpus_per_node"]
    chosen = [override.partition("=")[0] for override in list_default_pools(config, given)]
    assert not {f"++{key}" for key in given} & set(chosen)
    assert list_default_pools(make_config(**{f"{ROLLOUT}.nnodes": 2}), []) == []
