"""A model as a trainer sends it, and as the ranks of a tensor-parallel engine hold it.

The layout is vLLM's: q, k and v in one projection, of which a rank holds its heads (key heads are
copied if there are fewer than ranks), gate and up in one, row-parallel projections cut along their
inputs, an embedding padded with zeros, norms on every rank, experts stacked.
"""

from dataclasses import dataclass

import torch
from torch import nn

FUSED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
PADDING = 8


@dataclass(frozen=True)
class Shape:
    """Sizes of the model; ``ranks`` divides ``heads`` and ``inner``."""

    ranks: int
    heads: int
    key_heads: int
    head_size: int
    inner: int
    vocabulary: int
    layers: int
    experts: int = 0


def make_weights(shape: Shape, seed: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The model as a trainer sends it."""
    generator = torch.Generator().manual_seed(seed)
    hidden = shape.heads * shape.head_size

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator).to(dtype)

    weights = {"model.embed_tokens.weight": draw(shape.vocabulary, hidden)}
    for layer in range(shape.layers):
        attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
        for name, heads in (("q", shape.heads), ("k", shape.key_heads), ("v", shape.key_heads)):
            weights[f"{attention}.{name}_proj.weight"] = draw(heads * shape.head_size, hidden)
            weights[f"{attention}.{name}_proj.bias"] = draw(heads * shape.head_size)
        weights[f"{attention}.o_proj.weight"] = draw(hidden, hidden)
        prefixes = [f"{mlp}.experts.{expert}" for expert in range(shape.experts)] or [mlp]
        for prefix in prefixes:
            weights[f"{prefix}.gate_proj.weight"] = draw(shape.inner, hidden)
            weights[f"{prefix}.up_proj.weight"] = draw(shape.inner, hidden)
            weights[f"{prefix}.down_proj.weight"] = draw(hidden, shape.inner)
        weights[f"model.layers.{layer}.input_layernorm.weight"] = draw(hidden)
    return weights


def hold(weights: dict[str, torch.Tensor], shape: Shape, rank: int) -> nn.Module:
    """What rank ``rank`` of the engine holds."""
    model = nn.Module()
    model.packed_modules_mapping = FUSED
    model.get_expert_mapping = lambda: [
        (f"experts.{held}", f"experts.{expert}.{sent}.", expert, shard)
        for expert in range(shape.experts)
        for held, sent, shard in (
            ("w13_", "gate_proj", "w1"),
            ("w2_", "down_proj", "w2"),
            ("w13_", "up_proj", "w3"),
        )
    ]

    def put(name: str, value: torch.Tensor, sizes: list[int] | None = None) -> None:
        *path, leaf = name.split(".")
        module = model
        for word in path:
            if not hasattr(module, word):
                module.add_module(word, nn.Module())
            module = getattr(module, word)
        module.register_parameter(leaf, nn.Parameter(value.clone(), requires_grad=False))
        if sizes is not None:
            module.output_partition_sizes = sizes

    def cut(value: torch.Tensor, axis: int = 0) -> torch.Tensor:
        return value.chunk(shape.ranks, axis)[rank]

    def cut_keys(value: torch.Tensor) -> torch.Tensor:
        if shape.key_heads >= shape.ranks:
            return cut(value)
        copies = shape.ranks // shape.key_heads
        return value.chunk(shape.key_heads)[rank // copies]

    embedding = weights["model.embed_tokens.weight"]
    rows = -len(embedding) % (PADDING * shape.ranks)
    padding = torch.zeros(rows, embedding.shape[1], dtype=embedding.dtype)
    put("model.embed_tokens.weight", cut(torch.cat([embedding, padding])))
    for layer in range(shape.layers):
        attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
        for leaf in ("weight", "bias"):
            q, k, v = (weights[f"{attention}.{name}_proj.{leaf}"] for name in "qkv")
            parts = [cut(q), cut_keys(k), cut_keys(v)]
            put(f"{attention}.qkv_proj.{leaf}", torch.cat(parts), [len(part) for part in parts])
        put(f"{attention}.o_proj.weight", cut(weights[f"{attention}.o_proj.weight"], 1))
        norm = f"model.layers.{layer}.input_layernorm.weight"
        put(norm, weights[norm])
        if shape.experts:
            stacked: dict[str, list[torch.Tensor]] = {"w13_weight": [], "w2_weight": []}
            for expert in range(shape.experts):
                gate, up, down = (
                    weights[f"{mlp}.experts.{expert}.{name}_proj.weight"]
                    for name in ("gate", "up", "down")
                )
                stacked["w13_weight"].append(torch.cat([cut(gate), cut(up)]))
                stacked["w2_weight"].append(cut(down, 1))
            for name, values in stacked.items():
                put(f"{mlp}.experts.{name}", torch.stack(values))
        else:
            gate, up = (weights[f"{mlp}.{name}_proj.weight"] for name in ("gate", "up"))
            put(
                f"{mlp}.gate_up_proj.weight",
                torch.cat([cut(gate), cut(up)]),
                [shape.inner // shape.ranks] * 2,
            )
            put(f"{mlp}.down_proj.weight", cut(weights[f"{mlp}.down_proj.weight"], 1))
    return model
