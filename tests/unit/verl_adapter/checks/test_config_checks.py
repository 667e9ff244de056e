"""Settings that cannot work are refused before anything is loaded, in one line with field, value
and fix.
"""

import re

import numpy as np
import pytest
from omegaconf import OmegaConf

from tests.helpers.thinned import thin_out_rows
from verl_pipeline.trainer.pipeline_config import (
    PIPELINE_KEY,
    ROLLOUT,
    ConfigError,
    load_sync_filters,
)
from verl_pipeline.verl_adapter.checks.check_list import check_pipelined_config, check_run
from verl_pipeline.verl_adapter.checks.config_checks import check_dataset
from verl_pipeline.verl_adapter.checks.model_checks import find_local_path
from verl_pipeline.verl_adapter.trainers.filtering_replay_buffer import FilteringReplayBuffer
from verl_pipeline.verl_adapter.trainers.filtering_trainer import read_length_limits

ACTOR = "actor_rollout_ref.actor"


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr("verl.utils.device.get_device_name", lambda: "cpu")


def test_a_run_that_works_passes(composed):
    check_pipelined_config(composed())


@pytest.mark.parametrize(
    ("override", "message"),
    thin_out_rows(
        [
            (f"{ROLLOUT}.nnodes=0", f"{ROLLOUT}.nnodes=0: both pools need"),
            ("trainer.n_gpus_per_node=0", "trainer.n_gpus_per_node=0: both pools need"),
            (f"{ROLLOUT}.tensor_model_parallel_size=2", "does not divide the rollout pool of 1"),
            (
                f"{ACTOR}.ppo_mini_batch_size=0",
                f"{ACTOR}.ppo_mini_batch_size=0: set it to 1 or more",
            ),
            ("trainer.n_gpus_per_node=3", "is 16, not a multiple of the data-parallel size 3"),
            (
                f"{ACTOR}.ppo_micro_batch_size_per_gpu=5",
                "ppo_micro_batch_size_per_gpu=5: must divide the 16 trajectories",
            ),
            (
                f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=3",
                "log_prob_micro_batch_size_per_gpu=3: must divide the 16",
            ),
            ("+data.gen_batch_size=3", "data.gen_batch_size=3: must divide"),
            (
                "data.train_files=/no/such.parquet",
                "data.train_files=/no/such.parquet: no such file",
            ),
            ("data.val_files=/no/such.parquet", "data.val_files=/no/such.parquet: no such file"),
            (
                "reward.custom_reward_function.path=nowhere.py",
                "custom_reward_function.path=nowhere.py: no such file",
            ),
            (
                "actor_rollout_ref.model.path=/no/model",
                "actor_rollout_ref.model.path=/no/model: no model there",
            ),
            (
                "data.max_response_length=1000",
                "data.max_response_length=1000: .*above the model's 256 positions",
            ),
            (f"{ROLLOUT}.max_model_len=70", f"{ROLLOUT}.max_model_len=70: 80 are needed"),
            (f"{ROLLOUT}.max_model_len=300", "max_model_len=300: above the model's 256 positions"),
            (f"{ACTOR}.strategy=fsdp", f"{ACTOR}.strategy=fsdp: CPUs need fsdp2"),
            (
                f"{ACTOR}.fsdp_config.param_offload=True",
                "param_offload=True: there is no device to offload from",
            ),
            ("trainer.device=cuda", "trainer.device=cuda: verl's platform is cpu"),
            ("trainer.use_v1=False", "trainer.use_v1=False"),
            (
                "algorithm.filter_groups.enable=True",
                "algorithm.filter_groups.enable=True: one-off pipelining trains",
            ),
            (
                "reward.reward_model.enable=True",
                "reward.reward_model.enable=True: a colocated reward model",
            ),
            (
                f"{PIPELINE_KEY}.filters=[{{name: overlong, mode: mask}}]",
                "filters: filter overlong: mode='mask' must be one of drop",
            ),
            (f"{PIPELINE_KEY}.filters=overlong", f"{PIPELINE_KEY}.filters: "),
            (
                f"{PIPELINE_KEY}.filters=[infrastucture]",
                "filters: unknown filter 'infrastucture'; did you mean infrastructure?",
            ),
            (
                "trainer.v1.sampler.custom_sampler.path=mine.py",
                "custom_sampler.path=mine.py: the in-order",
            ),
        ],
        keep=10,
    ),
)
def test_a_setting_that_cannot_work_is_refused(composed, override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        # verl has no default for it.
        check_pipelined_config(composed("reward.reward_model.rollout.name=vllm", override))
    for line in str(caught.value).splitlines():
        assert re.match(r"[a-z_.0-9]+( x [a-z_]+)*(=.*)?: \S", line)


def test_a_model_folder_that_cannot_be_read_is_named(composed, tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=f"model.path={tmp_path}: cannot be read"):
        check_pipelined_config(composed(f"actor_rollout_ref.model.path={tmp_path}"))


def test_a_model_without_positions_needs_a_number_of_them(composed, tmp_path):
    """verl's rollout servers refuse such a model; its own scaling does not count there either."""
    from transformers import MambaConfig

    MambaConfig(hidden_size=8, num_hidden_layers=1, vocab_size=8).save_pretrained(tmp_path)
    path = f"actor_rollout_ref.model.path={tmp_path}"
    with pytest.raises(ConfigError, match="config.json has no max_position_embeddings, which verl"):
        check_pipelined_config(composed(path))
    override = "+actor_rollout_ref.model.override_config.max_position_embeddings=256"
    check_pipelined_config(composed(path, override))


def test_a_batch_may_end_with_a_part_of_a_mini_batch(composed):
    """verl pads it."""
    check_pipelined_config(
        composed(
            f"{ACTOR}.ppo_mini_batch_size=3",
            f"{ACTOR}.ppo_micro_batch_size_per_gpu=6",
            f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=6",
        )
    )


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen2.5-7B-Instruct", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"]
)
def test_a_hubs_name_with_a_dot_is_no_file(name):
    assert find_local_path(name) is None


@pytest.mark.parametrize("path", ["/models/a", "./a", "~/a", "file:///models/a"])
def test_a_path_is_a_path(path):
    assert find_local_path(path) is not None


def test_a_small_data_set_is_refused(composed):
    with pytest.raises(
        ConfigError, match="data.train_batch_size=4: the training set has 3 prompts"
    ):
        check_dataset(composed(), 3)


@pytest.mark.parametrize("mode", ["sync", "sync_filtered", "one_off_pipeline"])
def test_verls_older_trainers_are_refused_in_every_mode(composed, mode):
    with pytest.raises(ConfigError, match="trainer.use_v1=False: this command runs verl's v1"):
        check_run(composed(f"trainer.v1.trainer_mode={mode}", "trainer.use_v1=False"))


def test_a_misspelt_mode_names_the_nearest(composed):
    with pytest.raises(ConfigError, match="did you mean one_off_pipeline"):
        check_run(composed("trainer.v1.trainer_mode=one_of_pipeline"))
    with pytest.raises(ConfigError, match="known: .*one_off_pipeline, .*sync"):
        check_run(composed("trainer.v1.trainer_mode=xyz"))


def test_mini_batches_of_actor_and_critic_must_be_equal(composed, tiny_directory):
    critic = (
        "algorithm.adv_estimator=gae",
        "critic.ppo_micro_batch_size_per_gpu=8",
        f"critic.model.path={tiny_directory / 'model'}",
    )
    check_pipelined_config(composed(*critic, "critic.ppo_mini_batch_size=4"))
    with pytest.raises(
        ConfigError, match="critic.ppo_mini_batch_size=2: must equal .*ppo_mini_batch_size=4"
    ):
        check_pipelined_config(composed(*critic, "critic.ppo_mini_batch_size=2"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"filtres": []}, "sync_filtered.filtres: unknown key; known keys: filters"),
        ({"filters": "overlong"}, "sync_filtered.filters=overlong: must be a list"),
        (
            {"filters": ["overlng"]},
            "sync_filtered.filters: unknown filter 'overlng'; did you mean overlong?",
        ),
    ],
)
def test_the_thin_trainers_only_field_is_checked(given, message):
    with pytest.raises(ConfigError, match=message):
        load_sync_filters(OmegaConf.create({"trainer": {"v1": {"sync_filtered": given}}}))


def test_the_thin_trainer_filters_infrastructure_unless_told_otherwise():
    (entry,) = load_sync_filters(OmegaConf.create({"trainer": {"v1": {}}}))
    assert entry.name == "infrastructure"


def buffer(config, **changed):
    sampler = OmegaConf.to_container(config.trainer.v1.sampler, resolve=True)
    return FilteringReplayBuffer(
        **{"trainer_mode": "sync", "trainer_config": {}, "refill_fn": None, **changed},
        max_off_policy_threshold=sampler["max_off_policy_threshold"],
        max_off_policy_strategy=sampler["max_off_policy_strategy"],
        sampler_kwargs=sampler["sampler_kwargs"],
    )


def test_filters_in_verls_replay_buffer_are_checked_before_ray_starts(composed):
    sync = ("trainer.v1.trainer_mode=sync", "+sync_filters=overlong")
    check_run(composed(*sync), skip=("device", "files", "model"))
    with pytest.raises(ConfigError, match="unknown filter 'overlng'; did you mean overlong?"):
        check_run(composed(*sync, "trainer.v1.sampler.sampler_kwargs.filters=[overlng]"))
    critic = ("algorithm.adv_estimator=gae", "critic.enable=True", "critic.ppo_mini_batch_size=2")
    with pytest.raises(ConfigError, match="critic.ppo_mini_batch_size=2: must equal"):
        check_run(composed(*sync, *critic))


def test_without_max_model_len_a_request_ends_at_the_models_positions(composed):
    section = composed(
        "data.max_response_length=250", f"{ROLLOUT}.max_model_len=null"
    ).actor_rollout_ref
    assert section.rollout.max_model_len is None
    assert read_length_limits(section.rollout, section.model).compute_limits(
        np.array([64])
    ).tolist() == [192]


def test_filters_in_verls_replay_buffer(composed):
    sync = ("trainer.v1.trainer_mode=sync", "+sync_filters=overlong")
    assert [entry.name for entry in buffer(composed(*sync)).filters] == [
        "infrastructure",
        "overlong",
    ]
    with pytest.raises(ConfigError, match="works in trainer_mode=sync, not in separate_async"):
        buffer(composed(*sync), trainer_mode="separate_async")
    kwargs = "trainer.v1.sampler.sampler_kwargs"
    with pytest.raises(
        ConfigError, match="overlong sets advantages to 0.*trainer_mode=sync_filtered"
    ):
        buffer(composed(*sync, f"{kwargs}.filters=[{{name: overlong, mode: deepcoder}}]"))
    with pytest.raises(ConfigError, match="missing or unknown: filtres"):
        buffer(composed(*sync, f"+{kwargs}.filtres=[]"))
    with pytest.raises(ConfigError, match="unknown filter 'overlng'; did you mean overlong?"):
        buffer(composed(*sync, f"{kwargs}.filters=[overlng]"))
