"""What an engine's ranks hold against what was sent: sharding is no difference, all else is one."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.sharded_model import Shape, hold, make_weights
from verl_pipeline.verl_adapter.weights.held_weights import read_model
from verl_pipeline.weight_sync.comparison import compare_weights, parse_reading
from verl_pipeline.weight_sync.fingerprint import fingerprint_tensor


@st.composite
def shapes(draw):
    ranks = draw(st.sampled_from([1, 2, 4]))
    heads = ranks * draw(st.integers(1, 2))
    key_heads = draw(st.sampled_from([n for n in (1, 2, 4, 8) if n <= heads]))
    if key_heads > ranks and key_heads % ranks or heads % key_heads:
        key_heads = 1
    return Shape(
        ranks=ranks,
        heads=heads,
        key_heads=key_heads,
        head_size=draw(st.sampled_from([2, 4])),
        inner=ranks * draw(st.integers(1, 4)),
        vocabulary=draw(st.integers(3, 20)),
        layers=draw(st.integers(1, 2)),
        experts=draw(st.sampled_from([0, 0, 3])),
    )


def compare(sent, models, *, dtype=None, starts_random=True, hides_experts=False):
    fingerprints = {name: fingerprint_tensor(weight, dtype) for name, weight in sent.items()}
    answers = [read_model(model, list(sent), dtype, hides_experts) for model in models]
    readings = [parse_reading(json.loads(json.dumps(answer))) for answer in answers]
    return compare_weights(fingerprints, readings, starts_random=starts_random)


@settings(max_examples=30, deadline=None)
@given(shapes(), st.sampled_from([torch.float32, torch.bfloat16]))
def test_sharding_and_fusing_are_no_difference(shape, held_dtype):
    sent = make_weights(shape, 1, torch.float32)
    held = {name: weight.to(held_dtype) for name, weight in sent.items()}
    models = [hold(held, shape, rank) for rank in range(shape.ranks)]
    found = compare(sent, models, dtype=held_dtype)
    assert found.differences == []
    assert found.unchecked == {}
    assert found.checked == set(sent)


@settings(max_examples=60, deadline=None)
@given(shapes(), st.data())
def test_one_changed_bit_is_found_and_named(shape, data):
    sent = make_weights(shape, 1, torch.bfloat16)
    name = data.draw(st.sampled_from(sorted(sent)))
    damaged = sent[name].clone()
    element = data.draw(st.integers(0, damaged.numel() - 1))
    damaged.view(-1).view(torch.int16)[element] ^= 1 << data.draw(st.integers(0, 14))
    models = [hold(sent | {name: damaged}, shape, rank) for rank in range(shape.ranks)]
    found = compare(sent, models)
    assert len(found.differences) == 1
    named = found.differences[0].split(":")[0]
    if ".experts." in name:
        # Experts are stacked: the layer is named by its first tensor.
        assert named.split(".experts.")[0] == name.split(".experts.")[0]
        assert "and 2 more" in named or "and 5 more" in named
    else:
        assert named == name
        assert found.checked == set(sent) - {name}


@settings(max_examples=15, deadline=None)
@given(shapes(), st.integers(0, 3))
def test_a_rank_with_old_weights_is_found(shape, rank):
    sent, old = (make_weights(shape, seed, torch.bfloat16) for seed in (1, 2))
    models = [hold(old if r == rank % shape.ranks else sent, shape, r) for r in range(shape.ranks)]
    assert compare(sent, models).differences


def test_tensors_with_each_others_names_are_found():
    shape = Shape(2, 4, 2, 4, 8, 11, 2)
    sent = make_weights(shape, 1, torch.bfloat16)
    one, other = (f"model.layers.{layer}.mlp.up_proj.weight" for layer in (0, 1))
    held = sent | {one: sent[other], other: sent[one]}
    found = compare(sent, [hold(held, shape, rank) for rank in range(2)])
    assert [text.split(":")[0] for text in found.differences] == [one, other]


def test_a_parameter_that_nobody_sends_is_a_difference_where_engines_start_random():
    shape = Shape(1, 2, 2, 4, 8, 11, 1)
    weights = make_weights(shape, 1, torch.bfloat16)
    model = hold(weights, shape, 0)
    sent = {name: weight for name, weight in weights.items() if ".up_proj" not in name}
    found = compare(sent, [model])
    assert "gate_up_proj.weight (part 1): the trainer sent nothing for it" in found.differences[0]
    assert compare(sent, [model], starts_random=False).differences == []
    sent = {name: weight for name, weight in weights.items() if "norm" not in name}
    assert "input_layernorm.weight: the trainer sent" in compare(sent, [model]).differences[0]


def test_tensors_under_unknown_names_make_no_parameter_unsent():
    """Experts that a trainer sends stacked: vLLM loads them, but only it knows where."""
    shape = Shape(1, 2, 2, 4, 8, 11, 2, experts=3)
    weights = make_weights(shape, 1, torch.bfloat16)
    model = hold(weights, shape, 0)
    sent = {name: weight for name, weight in weights.items() if ".experts." not in name}
    experts = "model.layers.{}.mlp.experts"
    stacked = {
        f"{experts.format(layer)}.{name}": torch.ones(3, 2, 2)
        for layer in (0, 1)
        for name in ("gate_up_proj", "down_proj")
    }
    found = compare(sent | stacked, [model])
    assert found.differences == []
    assert set(found.unchecked) == set(stacked)
    found = compare(sent | {"lm_head.weight": torch.ones(2, 2)}, [model])
    assert "layers.0.mlp.experts.w13_weight (and 3 more): the trainer" in found.differences[0]


def test_what_cannot_be_compared_is_unchecked_with_a_reason():
    shape = Shape(1, 2, 2, 4, 8, 11, 1, experts=3)
    weights = make_weights(shape, 1, torch.bfloat16)
    model = hold(weights, shape, 0)
    found = compare(weights | {"lm_head.weight": torch.ones(2, 2)}, [model])
    assert list(found.unchecked) == ["lm_head.weight"]
    assert found.checked == set(weights)
    found = compare(weights, [model], hides_experts=True)
    assert set(found.unchecked) == {name for name in weights if ".experts." in name}
    assert found.differences == []

    def composed_weight_loader():
        def composed_loader(parameter, loaded):
            pass

        return composed_loader

    norm = "model.layers.0.input_layernorm.weight"
    model.get_parameter(norm).weight_loader = composed_weight_loader()
    found = compare(weights, [model])
    assert found.unchecked == {norm: "the engine computes what it holds from what is sent"}
    found = compare({name: weight.float() for name, weight in weights.items()}, [model])
    assert "different dtypes (bfloat16, float32)" in found.unchecked["model.embed_tokens.weight"]
    assert found.checked == set()


def test_the_frozen_base_of_a_lora_is_a_difference_whatever_arrives():
    sent = {"model.layers.0.self_attn.q_proj.base_layer.weight": torch.ones(2, 2)}
    found = compare(sent, [torch.nn.Module()], starts_random=False)
    assert "the trainer sent the frozen base of a LoRA" in found.differences[0]


@pytest.mark.parametrize("keeps_parts", [True, False])
def test_an_engine_that_renames_parts_itself_is_understood(keeps_parts):
    """vLLM's newer mappers put the fused module's name in place of its part's."""
    shape = Shape(1, 2, 2, 4, 8, 11, 1)
    weights = make_weights(shape, 1, torch.bfloat16)
    model = hold(weights, shape, 0)

    class Mapper:
        def apply_list(self, names):
            for part in ("q_proj", "k_proj", "v_proj") if not keeps_parts else ():
                names = [name.replace(f".{part}.", ".qkv_proj.") for name in names]
            return [name.replace("language.", "") for name in names if "dropped" not in name]

    model.hf_to_vllm_mapper = Mapper()
    sent = {f"language.{name}": weight for name, weight in weights.items()}
    found = compare(sent | {"dropped.weight": torch.ones(3)}, [model])
    assert found.differences == []
    assert found.checked == set(sent)
    assert list(found.unchecked) == ["dropped.weight"]
    damaged = sent | {
        "language.model.layers.0.self_attn.k_proj.weight": torch.ones(8, 8).bfloat16()
    }
    assert "k_proj" in compare(damaged, [model]).differences[0].split(":")[0]
