"""Fingerprints of the parameters of a model of vLLM's, by the names that a trainer sends.

It uses what vLLM's models tell about themselves: ``packed_modules_mapping``, ``hf_to_vllm_mapper``,
``get_expert_mapping``, and the ``output_partition_sizes`` of their linear layers.

Invariants:
* Reading changes nothing, and allocates no copy of a whole parameter.
* An answer consists of plain lists, texts and numbers: vLLM sends nothing else between processes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from verl_pipeline.weight_sync.fingerprint import fingerprint_tensor
from verl_pipeline.weight_sync.held_names import Place, place_tensors

# Name of vLLM's weight loaders that compute something from what they load.
_TRANSFORMING = "composed_weight_loader"


def read_model(
    model: Any, sent: Sequence[str], dtype: torch.dtype | None, hides_experts: bool
) -> dict[str, Any]:
    """What this rank's part of a model holds of the tensors ``sent``.

    Args:
        sent: names of the tensors in Hugging Face's format.
        dtype: look at them in this dtype; None: as they are held.
        hides_experts: whether other engines hold some of the experts, or copies of them.

    Returns:
        What :func:`~verl_pipeline.weight_sync.comparison.parse_reading` takes.
    """
    held = dict(model.named_parameters())
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    placement = place_tensors(
        sent,
        held,
        fused=getattr(model, "packed_modules_mapping", None) or {},
        experts=_list_experts(model),
        rename=lambda name: next(iter(mapper.apply_list([name])), None) if mapper else name,
    )
    unchecked: dict[str, str] = {}
    parts, unsent = [], [name for name in placement.unsent if held[name].numel() > 1]
    for name, place in placement.places.items():
        parameter = held[name]
        if reason := _find_obstacle(parameter, place, hides_experts):
            unchecked.update(dict.fromkeys(place.tensors, reason))
            continue
        for position, tensors, part in _split(model, name, parameter, place):
            if not tensors:
                unsent.append(f"{name} (part {position})")
                continue
            found = fingerprint_tensor(part, dtype)
            parts.append([name, tensors, f"{found.digest:x}", found.total, found.dtype])
    return make_answer(parts, unchecked, placement.unheld, unsent)


def make_answer(
    parts: Sequence[list] = (),
    unchecked: dict[str, str] | None = None,
    unheld: Sequence[str] = (),
    unsent: Sequence[str] = (),
) -> dict[str, Any]:
    """An answer with these fields; the others are empty."""
    return {
        "parts": list(parts),
        "unchecked": unchecked or {},
        "unheld": list(unheld),
        "unsent": list(unsent),
    }


def _list_experts(model: Any) -> dict[str, str]:
    """By part of a checkpoint's name that belongs to one expert, the part that replaces it."""
    get_mapping = getattr(model, "get_expert_mapping", None)
    mapping = get_mapping() if get_mapping is not None else []
    return {weight: parameter for parameter, weight, _expert, _shard in mapping}


def _find_obstacle(parameter: torch.Tensor, place: Place, hides_experts: bool) -> str | None:
    if place.is_expert and hides_experts:
        return "this engine does not hold all experts, or holds copies of them"
    loader = getattr(parameter, "weight_loader", None)
    if _TRANSFORMING in getattr(loader, "__qualname__", ""):
        return "the engine computes what it holds from what is sent"
    return None


def _split(
    model: Any, name: str, parameter: torch.Tensor, place: Place
) -> Iterator[tuple[int, list[str], torch.Tensor]]:
    """Position, tensors and values of each part of a parameter; of the whole if it has no parts."""
    sizes = getattr(model.get_submodule(name.rpartition(".")[0]), "output_partition_sizes", [])
    if len(sizes) != len(place.parts) or sum(sizes) != parameter.shape[0]:
        yield 0, place.tensors, parameter
        return
    for position, (sent, part) in enumerate(
        zip(place.parts, parameter.split(list(sizes)), strict=True)
    ):
        yield position, [sent] if sent else [], part
