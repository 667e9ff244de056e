"""How large a model is, from its ``config.json``: parameters, those active in a token, KV cache.

Decoder-only transformers of gated feed-forward layers, dense or with experts, as Llama, Qwen,
Mistral and Mixtral are. Norms and biases, under 0.1 % together, are left out.

Invariant: a model that this arithmetic does not describe is refused, in one line.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_pipeline.input_files import read_settings_file
from verl_pipeline.planner.profile_error import ProfileError

# Other names of a field, in models that have experts.
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
LARGEST = 1_000_000_000
# Fields that say that attention keeps something else than keys and values of each token.
OTHER_CACHES = {
    "kv_lora_rank": "latent attention",
    "ssm_cfg": "a state-space model",
    "linear_num_key_heads": "linear attention",
    "attn_layer_period": "a hybrid of attention and state-space layers",
}
BYTES = 2


@dataclass(frozen=True)
class ModelSize:
    """Sizes of a model in bf16.

    Attributes:
        parameters: all.
        active: that take part in a token; the embedding of the input, which is looked up, does not.
        experts, experts_per_token: of a layer with experts; 1 and 1 without.
        expert_parameters: of all routed experts.
        kv_bytes: of the cache, a token.
    """

    parameters: float
    active: float
    experts: int
    experts_per_token: int
    expert_parameters: float
    kv_bytes: float

    def count_read(self, sequences: float) -> float:
        """Parameters that a decoding step of that many sequences reads, on average.

        Each token chooses its experts independently, all with the same chance.
        """
        untouched = (1 - self.experts_per_token / self.experts) ** sequences
        return self.parameters - self.expert_parameters * untouched


def read_model_size(path: Path) -> ModelSize:
    """Read a model's ``config.json``, or the one in its folder.

    Raises:
        InputError: the file cannot be read.
        ProfileError: a field is missing or wrong, or it is another kind of model.
    """
    # os.path: a name that no file can have is no folder.
    file = path / "config.json" if os.path.isdir(path) else path
    content = read_settings_file(file, json.loads, "JSON")
    if not isinstance(content, dict):
        raise ProfileError(f"{file}: must be a model's config.json, names with values")
    if "hidden_size" not in content and isinstance(content.get("text_config"), dict):
        content = content["text_config"]
    try:
        return compute_size(content)
    except ProfileError as error:
        raise ProfileError(f"{file}: {error}") from error


def compute_size(config: Mapping[str, Any]) -> ModelSize:
    """Compute the sizes of a model.

    Raises:
        ProfileError: a field is missing or wrong, or it is another kind of model.
    """
    for field, kind in OTHER_CACHES.items():
        if config.get(field) is not None:
            raise ProfileError(
                f"{field}: the model has {kind}, whose cache is not computed; write a profile with "
                "its rates (docs/planner/profiles.md)"
            )
    hidden = _read(config, "hidden_size")
    layers = _read(config, "num_hidden_layers")
    heads = _read(config, "num_attention_heads")
    groups = _read(config, "num_key_value_heads", heads)
    width = _read(config, "head_dim", hidden // heads)
    vocabulary = _read(config, "vocab_size")
    tied = bool(config.get("tie_word_embeddings", False))
    attention = hidden * width * (2 * heads + 2 * groups)
    count = next((config[name] for name in EXPERTS if config.get(name) is not None), 0)
    experts = _check("the number of experts", count) if count else 0
    if experts > 1:
        chosen = min(_read(config, "num_experts_per_tok"), experts)
        inner = _read(config, "moe_intermediate_size", config.get("intermediate_size"))
        shared = _read_shared(config, inner)
        sparse = _count_sparse_layers(config, layers)
    else:
        experts, chosen, inner, shared, sparse = 1, 1, 0, 0, 0
    dense = layers - sparse
    feed_forward = 3 * hidden * _read(config, "intermediate_size", inner or None) if dense else 0
    routed = sparse * experts * 3 * hidden * inner
    head = hidden * vocabulary
    common = layers * attention + dense * feed_forward + sparse * 3 * hidden * shared
    common += sparse * experts * hidden * (experts > 1)  # routers
    return ModelSize(
        parameters=float(common + routed + head * (1 if tied else 2)),
        active=float(common + routed * chosen / experts + head),
        experts=experts,
        experts_per_token=chosen,
        expert_parameters=float(routed),
        kv_bytes=float(2 * layers * groups * width * BYTES),
    )


def _count_sparse_layers(config: Mapping[str, Any], layers: int) -> int:
    """Layers with experts: not the first few, every so many, and none that is listed as dense."""
    first = _check("first_k_dense_replace", config.get("first_k_dense_replace") or 0, 0)
    every = _check("decoder_sparse_step", config.get("decoder_sparse_step") or 1)
    listed = config.get("mlp_only_layers") or ()
    dense = set(listed) if isinstance(listed, list) else set()
    return sum((n + 1) % every == 0 and n >= first and n not in dense for n in range(layers))


def _read_shared(config: Mapping[str, Any], inner: int) -> int:
    """Width of the experts that every token takes."""
    if config.get("shared_expert_intermediate_size"):
        return _read(config, "shared_expert_intermediate_size")
    return inner * _check("n_shared_experts", config.get("n_shared_experts") or 0, 0)


def _read(config: Mapping[str, Any], name: str, default: Any = None) -> int:
    value = config.get(name)
    if value is None:
        value = default
    if value is None:
        raise ProfileError(
            f"{name} is missing: no config.json of a decoder-only transformer; give one, or write "
            "a profile"
        )
    return _check(name, value)


def _check(name: str, value: Any, low: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= LARGEST:
        shown = value if isinstance(value, int | float | str) else type(value).__name__
        raise ProfileError(
            f"{name}={str(shown)[:40]}: must be a whole number from {low} to {LARGEST:,}"
        )
    return value
