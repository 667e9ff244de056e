"""Batches are shared as verl shares them: whatever its workers accept passes, and what they refuse
is refused before a model loads.
"""

import copy
import re
import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_module
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl.workers.engine.fsdp.transformer_impl import FSDPEngine
from verl.workers.engine.utils import prepare_micro_batches
from verl.workers.engine_workers import TrainingWorker

from verl_pipeline.trainer.pipeline_config import ROLLOUT, ConfigError
from verl_pipeline.verl_adapter.checks import batch_checks
from verl_pipeline.verl_adapter.checks.check_report import NotChecked
from verl_pipeline.verl_adapter.checks.data_parallel import (
    ACTOR,
    CRITIC,
    REFERENCE,
    find_batch_multiple,
    find_shape,
    is_reference_in_actor,
    list_sections,
)

LONGEST = 8
MICRO_BATCHES = {
    f"{ACTOR}.ppo_micro_batch_size_per_gpu": 1,
    f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": 1,
    f"{REFERENCE}.log_prob_micro_batch_size_per_gpu": 1,
}
SECTIONS = (ACTOR, CRITIC, REFERENCE)


@pytest.fixture(scope="module")
def make_config():
    """verl's configuration with all three roles, plus settings; composed once for each engine."""
    bases: dict = {}

    def make(engine="dp", **values):
        if engine not in bases:
            with initialize_config_module("verl_pipeline.config", version_base=None):
                bases[engine] = compose(
                    "one_off_pipeline",
                    [
                        f"model_engine={engine}",
                        "algorithm.adv_estimator=gae",
                        f"{ACTOR}.use_kl_loss=True",
                        f"{ROLLOUT}.name=vllm",
                        f"data.max_prompt_length={LONGEST // 2}",
                        f"data.max_response_length={LONGEST // 2}",
                    ],
                )
        config = copy.deepcopy(bases[engine])
        for name, value in values.items():
            OmegaConf.update(config, name.replace("/", "."), value, force_add=True)
        return config

    return make


def find_errors(config) -> list[str]:
    findings = list(batch_checks.check_batches(config))
    if not any(isinstance(finding, ConfigError) for finding in findings):
        findings += batch_checks.check_micro_batches(config)
    return [str(finding) for finding in findings if isinstance(finding, ConfigError)]


# ---- verl's own computation ---------------------------------------------------------------------


def find_verls_size(config, section: str) -> int:
    """What verl's FSDP engine answers in a process of the trainer."""
    settings_of_role = copy.deepcopy(OmegaConf.select(config, section))
    mini_batch = config.actor_rollout_ref.actor.ppo_mini_batch_size
    if section == REFERENCE:  # as ActorRolloutRefWorker.init_model renames them
        with open_dict(settings_of_role):
            settings_of_role.ppo_mini_batch_size = mini_batch
            for name in ("micro_batch_size", "micro_batch_size_per_gpu"):
                settings_of_role[f"ppo_{name}"] = settings_of_role.pop(f"log_prob_{name}")
            settings_of_role.use_dynamic_bsz = settings_of_role.pop("log_prob_use_dynamic_bsz")
            settings_of_role.ppo_max_token_len_per_gpu = settings_of_role.pop(
                "log_prob_max_token_len_per_gpu"
            )
    if section == CRITIC:
        with open_dict(settings_of_role):
            del settings_of_role["model"]  # it would be loaded
    engine_config = omega_conf_to_dataclass(settings_of_role).engine
    engine = object.__new__(FSDPEngine)
    engine.ulysses_sequence_parallel_size = engine_config.ulysses_sequence_parallel_size
    return engine.get_data_parallel_size()


class VerlsWorker:
    """What ``TrainingWorker.train_mini_batch`` needs of a device, with one micro-batch size."""

    def __init__(self, size: int, micro_batch):
        self.engine = SimpleNamespace(
            get_data_parallel_size=lambda: size,
            get_data_parallel_rank=lambda: 0,
            train_mode=lambda **_kwargs: nullcontext(),
            is_mp_src_rank_with_outputs=lambda: False,
        )
        self.profiler = SimpleNamespace(step=lambda: None)
        self.micro_batch = micro_batch

    def train_batch(self, data):
        split_as_verl(data, self.micro_batch)

    def train_mini_batch(self, rows: int, mini_batch: int) -> None:
        data = TensorDict({"row": torch.arange(rows)}, batch_size=rows)
        tu.assign_non_tensor(data, mini_batch_size=mini_batch)
        TrainingWorker.train_mini_batch(self, data)


def split_as_verl(data: TensorDict, micro_batch: int | None, largest: int | None = None) -> None:
    """verl's micro-batches; ``micro_batch`` None: by tokens, each row of the greatest length.

    Args:
        largest: rows of the device with the most; verl gives each as many micro-batches.
    """
    data = data.copy()
    if micro_batch is not None:
        tu.assign_non_tensor(data, use_dynamic_bsz=False, micro_batch_size_per_gpu=micro_batch)
        prepare_micro_batches(data)
        return
    rows = len(data)
    data["input_ids"] = torch.nested.as_nested_tensor(
        [torch.zeros(LONGEST)] * rows, layout=torch.jagged
    )
    tu.assign_non_tensor(data, use_dynamic_bsz=True, max_token_len_per_gpu=LONGEST)
    prepare_micro_batches(data, min_num_micro_batch=largest)


def run_as_verl(config, rows: int) -> None:
    """The way of a batch of which filters and failures left ``rows``, through verl's own code."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    reference, n = config.actor_rollout_ref.ref, rollout.n
    assert actor.use_dynamic_bsz == rollout.log_prob_use_dynamic_bsz  # ActorRolloutRefWorker's
    sizes = {section: find_verls_size(config, section) for section in SECTIONS}
    trainer = SimpleNamespace(config=config, use_critic=True, global_steps=1)
    multiple = PPOTrainer._get_required_batch_multiple(trainer, sizes[ACTOR])
    padded = rows + -rows % multiple
    meta = KVBatchMeta(keys=[f"k{row}" for row in range(padded)], tags=[{}] * padded)
    shares = {section: [len(part) for part in meta.chunk(sizes[section])] for section in SECTIONS}
    by_tokens = actor.use_dynamic_bsz
    for section, micro_batch in (
        (ACTOR, None if by_tokens else rollout.log_prob_micro_batch_size_per_gpu),
        (
            REFERENCE,
            None
            if reference.log_prob_use_dynamic_bsz
            else reference.log_prob_micro_batch_size_per_gpu,
        ),
        (CRITIC, None),
    ):
        for share in set(shares[section]):
            data = TensorDict({"row": torch.arange(share)}, batch_size=share)
            split_as_verl(data, micro_batch, max(shares[section]))
        # With a fixed size, each forward pass has as many partners as there are devices.
        assert micro_batch is None or len(set(shares[section])) == 1
    for section, micro_batch in (
        (ACTOR, None if by_tokens else actor.ppo_micro_batch_size_per_gpu),
        (CRITIC, None),
    ):
        mini_batch = OmegaConf.select(config, f"{section}.ppo_mini_batch_size") * n
        worker = VerlsWorker(sizes[section], micro_batch)
        worker.train_mini_batch(shares[section][0], mini_batch)


def does_verl_accept(config) -> bool:
    full = config.data.train_batch_size * config.actor_rollout_ref.rollout.n
    try:
        for rows in {1, full // 2 or 1, full}:
            run_as_verl(config, rows)
    except (AssertionError, RuntimeError, ZeroDivisionError, IndexError, ValueError):
        return False
    return True


@st.composite
def draw_values(draw):
    degree = st.sampled_from([1, 1, 1, 2, 3, 4])
    small = st.sampled_from([1, 1, 2, 3, 4, 6, 8])
    dynamic = draw(st.booleans())
    mini_batch = draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    older = draw(st.sampled_from([None, None, 2]))
    values = {
        "trainer.n_gpus_per_node": draw(st.sampled_from([1, 2, 4, 6, 8])),
        "data.train_batch_size": draw(st.integers(1, 12)),
        f"{ROLLOUT}.n": draw(st.integers(1, 4)),
        f"{ACTOR}.ppo_mini_batch_size": mini_batch,
        f"{CRITIC}.ppo_mini_batch_size": mini_batch,  # check_mini_batches refuses another
        f"{CRITIC}.ppo_micro_batch_size_per_gpu": 1,  # unused, but verl wants it set
        f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size": draw(degree),
        f"{REFERENCE}.fsdp_config.ulysses_sequence_parallel_size": draw(degree),
        f"{CRITIC}.fsdp.ulysses_sequence_parallel_size": draw(degree),
        f"{ACTOR}.use_dynamic_bsz": dynamic,
        f"{ACTOR}.ppo_micro_batch_size_per_gpu": draw(small),
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": draw(small),
        f"{REFERENCE}.log_prob_micro_batch_size_per_gpu": draw(small),
        f"{REFERENCE}.log_prob_use_dynamic_bsz": draw(st.booleans()),
    }
    if older is not None:
        place = draw(st.sampled_from(SECTIONS))
        values[f"{place}.ulysses_sequence_parallel_size"] = older
    return values


@pytest.mark.parametrize("examples", [8, pytest.param(150, marks=pytest.mark.slow)])
def test_what_verls_workers_accept_passes_and_the_reverse(make_config, examples):
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(values=draw_values())
    def check(values):
        compare_with_verl(make_config(**values), values)

    check()


def compare_with_verl(config, values) -> None:
    ranks = config.trainer.n_gpus_per_node
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr("torch.distributed.get_world_size", lambda *args: ranks)
        shares = [
            OmegaConf.select(config, name)
            for name in values
            if name.endswith("ulysses_sequence_parallel_size")
        ]
        errors = find_errors(config)
        if any(ranks % share for share in shares):
            # verl's engines cannot even divide the devices; the critic's older setting is unused.
            assume(errors)
        else:
            for section in SECTIONS:
                assert find_shape(config, section).size == find_verls_size(config, section)
        if not any("does not divide the" in error for error in errors):
            assert bool(errors) != does_verl_accept(config), errors


@pytest.mark.parametrize(
    ("overrides", "accepted"),
    [
        ({}, True),
        # 8 devices of 2 x 2 x 2 form one group: any mini-batch will do.
        ({"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}, True),
        ({"tensor_model_parallel_size": 4, "context_parallel_size": 2}, True),
        ({"tensor_model_parallel_size": 3}, False),
        ({"tensor_model_parallel_size": 4, "context_parallel_size": 4}, False),
        ({"expert_model_parallel_size": 8}, True),
        ({"expert_model_parallel_size": 3}, False),
        ({"tensor_model_parallel_size": 2, "expert_model_parallel_size": 8}, False),
        (
            {
                "tensor_model_parallel_size": 2,
                "expert_model_parallel_size": 8,
                "expert_tensor_parallel_size": 1,
            },
            True,
        ),
    ],
)
def test_megatron_divides_its_devices(make_config, overrides, accepted):
    """The rules of Megatron Core's ``initialize_model_parallel``, which is not installed here."""
    values = {f"{ACTOR}.megatron.{name}": value for name, value in overrides.items()}
    config = make_config(
        "megatron", **{"trainer.n_gpus_per_node": 8, **values, f"{ACTOR}.use_dynamic_bsz": True}
    )
    if accepted:
        expected = 8
        for name, value in overrides.items():
            expected //= 1 if name.startswith("expert") else value
        assert find_shape(config, ACTOR).size == expected
        return
    with pytest.raises(ConfigError, match=r"actor\.megatron\..*: does not divide the 8 trainer"):
        find_shape(config, ACTOR)


@given(
    tensor=st.sampled_from([1, 2, 3, 4]),
    pipeline=st.sampled_from([1, 2]),
    context=st.sampled_from([1, 2]),
    batch=st.integers(1, 8),
    micro_batch=st.sampled_from([1, 2]),
)
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_verls_validation_has_the_same_size_of_megatron(
    make_config, tensor, pipeline, context, batch, micro_batch
):
    """verl's ``validate_config`` computes it, too, to compare it with the batch."""
    config = make_config(
        "megatron",
        **{
            "trainer.n_gpus_per_node": 8,
            "data.train_batch_size": batch,
            f"{ROLLOUT}.n": 1,
            f"{ACTOR}.ppo_mini_batch_size": batch,
            f"{ACTOR}.ppo_micro_batch_size_per_gpu": micro_batch,
            f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": 1,
            f"{ACTOR}.megatron.tensor_model_parallel_size": tensor,
            f"{ACTOR}.megatron.pipeline_model_parallel_size": pipeline,
            f"{ACTOR}.megatron.context_parallel_size": context,
        },
    )
    try:
        shape = find_shape(config, ACTOR)
    except ConfigError:
        with pytest.raises(AssertionError, match="model_parallel_size"):
            validate_config(config, use_reference_policy=False, use_critic=False)
        return
    fits = batch % (shape.size * micro_batch) == 0
    with nullcontext() if fits else pytest.raises(AssertionError, match="minimal possible batch"):
        validate_config(config, use_reference_policy=False, use_critic=False)
    refused = [error for error in find_actor_errors(config) if "ppo_m" in error]
    assert bool(refused) != fits


def find_actor_errors(config) -> list[str]:
    with open_dict(config):
        config.critic.enable = False
        config.actor_rollout_ref.actor.use_kl_loss = False
    return find_errors(config)


def test_dynamic_context_parallelism_gives_every_device_the_whole_batch(make_config):
    config = make_config(
        "megatron",
        **{
            "trainer.n_gpus_per_node": 8,
            f"{ACTOR}.megatron.context_parallel_size": 2,
            f"{ACTOR}.megatron.dynamic_context_parallel": True,
        },
    )
    shape = find_shape(config, ACTOR)
    assert (shape.size, shape.sequence_parts) == (1, 2)


@pytest.mark.parametrize(
    ("engine", "values", "size"),
    [
        ("veomni", {"veomni.ulysses_parallel_size": 4}, 2),
        (
            "torchtitan",
            {"torchtitan.data_parallel_shard_size": 4, "torchtitan.tensor_parallel_size": 2},
            4,
        ),
    ],
)
def test_other_engines_have_sizes_of_their_own(make_config, engine, values, size):
    config = make_config(
        engine,
        **{"trainer.n_gpus_per_node": 8, **{f"{ACTOR}.{k}": v for k, v in values.items()}},
    )
    assert find_shape(config, ACTOR).size == size


def test_torchtitan_is_told_its_size(make_config):
    config = make_config(
        "torchtitan",
        **{"trainer.n_gpus_per_node": 8, f"{ACTOR}.torchtitan.data_parallel_shard_size": 4},
    )
    with pytest.raises(ConfigError, match="data_parallel_shard_size=4: must be 8"):
        find_shape(config, ACTOR)


def test_an_engine_that_is_not_chosen_is_named(make_config):
    config = make_config(**{f"{ACTOR}.strategy": "megatron"})
    with pytest.raises(ConfigError, match="strategy=megatron: .*add model_engine=megatron"):
        find_shape(config, ACTOR)
    config = make_config(**{f"{ACTOR}.strategy": "fsdp_turbo"})
    with pytest.raises(NotChecked, match="strategy=fsdp_turbo: its data-parallel size"):
        find_shape(config, ACTOR)


def test_roles_that_have_no_engine_do_not_count(make_config):
    config = make_config(**{"actor_rollout_ref.model.lora_rank": 8})
    assert is_reference_in_actor(config) and list_sections(config) == [ACTOR, CRITIC]
    config = make_config(**{"critic.enable": False})
    assert list_sections(config) == [ACTOR, REFERENCE]
    assert find_batch_multiple(config, 8) == 256 * config.actor_rollout_ref.rollout.n


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {
                "trainer.n_gpus_per_node": 8,
                f"{ACTOR}.ppo_mini_batch_size": 6,
                f"{CRITIC}.ppo_mini_batch_size": 8,
            },
            r"actor.ppo_mini_batch_size=6: times .*rollout.n=1 is 6, not a multiple of the "
            r"data-parallel size 8",
        ),
        (
            {
                "trainer.n_gpus_per_node": 8,
                f"{ACTOR}.ulysses_sequence_parallel_size": 2,
                f"{REFERENCE}.ulysses_sequence_parallel_size": 1,
                f"{ACTOR}.ppo_mini_batch_size": 4,
                f"{CRITIC}.ppo_mini_batch_size": 4,
                f"{CRITIC}.fsdp.ulysses_sequence_parallel_size": 2,
                f"{ACTOR}.use_dynamic_bsz": True,
            },
            r"ref.fsdp_config.ulysses_sequence_parallel_size=1: verl makes batches multiples of 4",
        ),
        (
            {f"{ACTOR}.use_dynamic_bsz": True, f"{ROLLOUT}.log_prob_use_dynamic_bsz": False},
            r"rollout.log_prob_use_dynamic_bsz=False: verl needs it equal to .*=True",
        ),
        (
            {f"{ACTOR}.ppo_micro_batch_size_per_gpu": None, f"{ACTOR}.use_dynamic_bsz": False},
            r"ppo_micro_batch_size_per_gpu: is not set",
        ),
        (
            {
                f"{ACTOR}.use_dynamic_bsz": True,
                f"{ACTOR}.ppo_max_token_len_per_gpu": LONGEST - 1,
                f"{ROLLOUT}.log_prob_max_token_len_per_gpu": LONGEST,
                f"{REFERENCE}.log_prob_max_token_len_per_gpu": LONGEST,
            },
            rf"ppo_max_token_len_per_gpu={LONGEST - 1}: .* below the {LONGEST} of prompt \+ resp",
        ),
        (
            {f"{ACTOR}.use_dynamic_bsz": True, "critic.ppo_infer_max_token_len_per_gpu": 5},
            rf"critic.ppo_infer_max_token_len_per_gpu=5: .*; set \+critic.*={LONGEST} or more",
        ),
    ],
)
def test_errors_name_field_value_and_fix(make_config, values, message):
    errors = find_errors(make_config(**{**MICRO_BATCHES, **values}))
    assert len(errors) == 1 and re.search(message, errors[0]), errors


def test_a_micro_batch_has_to_fit_the_smallest_batch(make_config):
    """32 rows divide by 32, but if failures drop one, verl pads the other 31 to 2 x 16."""
    values = {
        "data.train_batch_size": 8,
        f"{ROLLOUT}.n": 4,
        f"{ACTOR}.ppo_mini_batch_size": 4,
        f"{CRITIC}.ppo_mini_batch_size": 4,
        f"{ACTOR}.use_dynamic_bsz": False,
        f"{ACTOR}.ppo_micro_batch_size_per_gpu": 16,
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": 32,
        f"{REFERENCE}.log_prob_micro_batch_size_per_gpu": 16,
        "trainer.n_gpus_per_node": 1,
    }
    (error,) = find_errors(make_config(**values))
    assert "log_prob_micro_batch_size_per_gpu=32: must divide the 16 trajectories" in error
    bypassed = {**values, "algorithm.rollout_correction.bypass_mode": True}
    assert find_errors(make_config(**bypassed)) == []
