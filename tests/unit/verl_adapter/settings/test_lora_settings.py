"""Every way of asking for LoRA either reaches the rollout pool or is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from verl_pipeline.trainer.pipeline_config import ConfigError, load_pipeline_config
from verl_pipeline.verl_adapter.settings.derived_settings import derive_settings
from verl_pipeline.verl_adapter.settings.lora_settings import MERGE, derive_lora

MODEL = "actor_rollout_ref.model"


def make(strategy="fsdp2", backend="naive", engine_kwargs=None, megatron=None, **model):
    return OmegaConf.create(
        {
            "actor_rollout_ref": {
                "model": {"lora_rank": 0, "lora_adapter_path": None, **model},
                "actor": {
                    "strategy": strategy,
                    "megatron": megatron or {"use_mbridge": True, "vanilla_mbridge": False},
                },
                "rollout": {
                    "checkpoint_engine": {"backend": backend},
                    "engine_kwargs": engine_kwargs or {},
                },
            }
        }
    )


def test_it_is_merged_into_what_is_sent_and_said(composed):
    config = composed(f"{MODEL}.lora_rank=8")
    derived = [str(entry) for entry in derive_settings(config, load_pipeline_config(config))]
    assert config.actor_rollout_ref.model.lora.merge is True
    assert any(entry.startswith(f"{MERGE}=True  (the pools are separate") for entry in derived)


def test_without_lora_nothing_changes(composed):
    config = composed()
    assert derive_lora(config) == []
    assert config.actor_rollout_ref.model.lora.merge is False


@pytest.mark.parametrize(
    "asked",
    [
        {"lora_rank": 8},
        {"lora_rank": 8, "lora_adapter_path": "/adapter"},
        {"strategy": "fsdp", "lora_rank": 8},
        {"strategy": "megatron", "lora": {"rank": 8}},
        {"strategy": "megatron", "lora": {"rank": 8, "adapter_path": "/adapter"}},
    ],
)
def test_what_verl_can_merge_is_merged(asked):
    assert [(entry.field, entry.value) for entry in derive_lora(make(**asked))] == [(MERGE, True)]
    asked["lora"] = {**asked.get("lora", {}), "merge": True}
    assert derive_lora(make(**asked)) == []


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"lora_adapter_path": "/a"}, r"lora_adapter_path=/a: verl loads no adapter while .*rank"),
        ({"lora": {"rank": 8}}, r"lora\.rank=8: actor\.strategy=fsdp2 does not read it.*lora_rank"),
        (
            {"strategy": "megatron", "lora_rank": 8},
            r"lora_rank=8: actor\.strategy=megatron does not read it, .* set .*model\.lora\.rank",
        ),
        ({"strategy": "megatron", "lora": {"rank": 0, "adapter_path": "/a"}}, "loads no adapter"),
        ({"strategy": "veomni", "lora_rank": 8}, r"no LoRA with actor\.strategy=veomni"),
        ({"strategy": "torchtitan", "lora": {"rank": 4}}, "use fsdp, fsdp2 or megatron"),
        ({"lora_rank": 8, "backend": "delta_sharded"}, "delta_sharded sends no LoRA"),
        (
            {
                "strategy": "megatron",
                "lora": {"rank": 8},
                "megatron": {"use_mbridge": True, "vanilla_mbridge": True},
            },
            "needs Megatron-Bridge",
        ),
        (
            {"lora_rank": 8, "engine_kwargs": {"vllm": {"enable_lora": True}}},
            r"engine_kwargs\.vllm\.enable_lora=True: the rollout pool gets merged weights",
        ),
    ],
)
def test_what_would_not_arrive_is_refused_with_the_fix(asked, message):
    with pytest.raises(ConfigError, match=message):
        derive_lora(make(**asked))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["fsdp", "fsdp2", "megatron", "veomni", "automodel"]),
    st.sampled_from([0, 8]),
    st.sampled_from([None, "/adapter"]),
    st.sampled_from([0, 8]),
    st.sampled_from([None, "/adapter"]),
    st.booleans(),
)
def test_no_lora_goes_on_unmerged(strategy, rank, path, megatron_rank, megatron_path, merge):
    config = make(
        strategy,
        lora_rank=rank,
        lora_adapter_path=path,
        lora={"rank": megatron_rank, "adapter_path": megatron_path, "merge": merge},
    )
    try:
        derived = derive_lora(config)
    except ConfigError as error:
        assert len(error.lines) == 1
        return
    is_asked = bool(rank or path or megatron_rank or megatron_path)
    assert bool(derived) == (is_asked and not merge)
