"""Profiles from a model's config.json and a data sheet: sizes, rates, and what is refused."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.planner_cases import make_small
from tests.helpers.repository import ROOT
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.planner.gpus import GPUS, find_gpu
from verl_pipeline.planner.model_profile import (
    GAIN_RATIOS,
    STEP_RATIOS,
    make_model_estimate,
)
from verl_pipeline.planner.model_size import compute_size, read_model_size
from verl_pipeline.planner.plan import Planner
from verl_pipeline.planner.profile_error import ProfileError

QWEN_7B = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
}  # fmt: skip
QWEN_1_5B = {
    "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
    "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936,
    "tie_word_embeddings": True,
}  # fmt: skip
QWEN_30B_A3B = {
    "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
    "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936, "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}  # fmt: skip
MIXTRAL = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8,
    "num_experts_per_tok": 2, "vocab_size": 32000,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "parameters", "active", "kv_bytes"),
    [  # as the models' cards and their safetensors say; KV cache by hand
        (QWEN_7B, 7.62e9, 7.07e9, 28 * 4 * 128 * 4),
        (QWEN_1_5B, 1.54e9, 1.54e9, 28 * 2 * 128 * 4),
        (QWEN_30B_A3B, 30.5e9, 3.04e9, 48 * 4 * 128 * 4),
        (MIXTRAL, 46.7e9, 12.75e9, 32 * 8 * 128 * 4),
    ],
)
def test_sizes_are_those_of_known_models(config, parameters, active, kv_bytes):
    size = compute_size(config)
    assert size.parameters == pytest.approx(parameters, rel=0.005)
    assert size.active == pytest.approx(active, rel=0.005)
    assert size.kv_bytes == kv_bytes


def test_first_dense_layers_shared_experts_and_nested_settings_count():
    plain = compute_size(QWEN_30B_A3B)
    dense = compute_size(QWEN_30B_A3B | {"first_k_dense_replace": 2})
    expert = 3 * 2048 * 768
    router = 2048 * 128
    assert plain.parameters - dense.parameters == 2 * (128 * expert + router - 3 * 2048 * 6144)
    shared = compute_size(QWEN_30B_A3B | {"n_shared_experts": 1})
    assert shared.parameters - plain.parameters == 48 * expert
    assert compute_size(QWEN_30B_A3B | {"decoder_sparse_step": 2}).experts == 128


@given(st.integers(1, 500))
@settings(derandomize=True, deadline=None)
def test_more_sequences_read_more_experts_and_never_more_than_all(sequences):
    size = compute_size(QWEN_30B_A3B)
    read = size.count_read(sequences)
    assert size.count_read(1) <= read <= size.count_read(sequences + 1) <= size.parameters
    assert compute_size(QWEN_7B).count_read(sequences) == compute_size(QWEN_7B).parameters


def estimate(config=QWEN_7B, gpu="h100", gpus=8, parallel=None, share=None, **work):
    profile = make_small(**work)
    return make_model_estimate(
        profile, "model", compute_size(config), find_gpu(gpu), gpus, parallel, share
    )


def test_a_decoding_step_reads_weights_and_caches():
    sampling = estimate(parallel=1).profile.sampling
    # 15.2 GB at 70 % of 3.35 TB/s, and 4 ms.
    assert sampling.decode_base_s == pytest.approx(0.004 + 15.23e9 / (0.7 * 3.35e12), rel=0.01)
    assert 0 < sampling.decode_per_sequence_s < 1e-3
    # 85 % of 80 GB less the weights, at 57,344 bytes a token
    assert sampling.kv_tokens == pytest.approx((68e9 - 15.23e9) / 57344, rel=0.01)
    longer = estimate(parallel=1, sampling__prompt_tokens=5000).profile.sampling
    assert longer.decode_per_sequence_s > sampling.decode_per_sequence_s


def test_training_follows_operations_and_the_given_share():
    profile = estimate(gpu="a100").profile
    operations = 10 * compute_size(QWEN_7B).active * 1e6
    expected = operations / (312e12 * 0.3 * 8)
    assert profile.training.compute_seconds(1e6, 1.0, 8) == pytest.approx(expected)
    twice = estimate(gpu="a100", share=0.6).profile
    assert twice.training.compute_seconds(1e6, 1.0, 8) == pytest.approx(expected / 2)
    assert "60 % of the FLOP/s" in " ".join(estimate(share=0.6).notes)


@pytest.mark.parametrize("gpu", sorted(GPUS))
def test_more_bandwidth_or_gpus_a_replica_decode_faster(gpu):
    one, two = (estimate(gpu=gpu, parallel=count).profile.sampling for count in (1, 2))
    assert two.decode_base_s < one.decode_base_s
    assert two.decode_per_sequence_s < one.decode_per_sequence_s
    assert two.kv_tokens > 2 * one.kv_tokens
    assert Planner(estimate(gpu=gpu).profile, seeds=1).sync.step_s > 0


def test_the_fewest_gpus_that_hold_the_model_make_a_replica():
    assert estimate().profile.sampling.tensor_parallel == 1
    large = dict(QWEN_7B, hidden_size=8192, intermediate_size=28672, num_hidden_layers=80)
    found = estimate(large, gpus=64)
    assert found.profile.sampling.tensor_parallel == 4
    assert found.profile.training.fewest_gpus > 8


def test_experts_make_a_line_between_one_sequence_and_a_full_replica():
    few = estimate(QWEN_30B_A3B, gpus=16)
    assert any("Experts are taken to be chosen evenly" in note for note in few.notes)
    dense = estimate(dict(QWEN_30B_A3B, num_experts=1), gpus=16).profile.sampling
    assert few.profile.sampling.decode_per_sequence_s > dense.decode_per_sequence_s


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "hidden_size is missing"),
        ({"num_hidden_layers": None}, "num_hidden_layers is missing"),
        ({"hidden_size": -4}, "hidden_size=-4: must be a whole number"),
        ({"vocab_size": "many"}, "vocab_size=many: must be a whole number"),
        ({"vocab_size": 1 << 60}, "vocab_size=11529"),
        ({"kv_lora_rank": 512}, "latent attention"),
        ({"num_experts": 64}, "num_experts_per_tok is missing"),
        ({"hidden_size": [1]}, "hidden_size=list"),
    ],
)
def test_a_wrong_config_names_the_field(tmp_path, config, words):
    content = config and {k: v for k, v in (QWEN_7B | config).items() if v is not None}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ProfileError, match=words):
        read_model_size(tmp_path)


def test_a_folder_a_file_and_a_nested_config_are_read(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"text_config": QWEN_7B}))
    assert read_model_size(path) == read_model_size(tmp_path) == compute_size(QWEN_7B)


def test_what_does_not_fit_is_refused():
    large = dict(QWEN_7B, hidden_size=8192, intermediate_size=28672, num_hidden_layers=80)
    with pytest.raises(ProfileError, match=r"--tensor-parallel 1: .* do not hold it"):
        estimate(large, gpus=64, parallel=1)
    with pytest.raises(ProfileError, match="too much for 8"):
        estimate(dict(large, num_hidden_layers=800), gpus=64)
    with pytest.raises(ProfileError, match="training.fewest_gpus"):
        estimate(large, gpus=8)
    with pytest.raises(ProfileError, match="--gpu b300: unknown; one of a100, h100, h20, h200"):
        find_gpu("b300")


def test_the_notes_have_the_errors_that_were_measured():
    results = json.loads((ROOT / "benchmarks/results/planner_models.json").read_text())
    summary = results["results"]["summary"]
    measured = {
        (format_decimal(ratio["low"], 1), format_decimal(ratio["high"], 1))
        for ratio in (summary["sync_ratio"], summary["gain_ratio"])
    }
    assert measured == {tuple(map(str, STEP_RATIOS)), tuple(map(str, GAIN_RATIOS))}


def test_the_work_is_kept():
    work = make_small()
    profile = estimate().profile
    assert profile.reward == work.reward
    assert (
        dataclasses.replace(
            profile.sampling,
            **{
                name: getattr(work.sampling, name)
                for name in (
                    *("decode_base_s", "decode_per_sequence_s", "prefill_tokens_per_s"),
                    *("kv_tokens", "tensor_parallel", "measured_tensor_parallel"),
                )
            },
        )
        == work.sampling
    )
