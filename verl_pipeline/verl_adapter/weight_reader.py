"""Reads, inside vLLM's worker, what it holds of the weights that the trainer sent.

vLLM adds :class:`WeightReadingExtension` to its worker's class
(``rollout.engine_kwargs.vllm.worker_extension_cls``); ``collective_rpc`` calls it on every rank.

Invariants:
* Reading changes nothing, and allocates no copy of a whole parameter.
* An answer consists of plain lists, texts and numbers: vLLM sends nothing else between processes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

from verl_pipeline.weight_sync.fingerprint import fingerprint_tensor
from verl_pipeline.weight_sync.held_names import Place, place_tensors

# Name of vLLM's weight loaders that compute something from what they load.
_TRANSFORMING = "composed_weight_loader"


class WeightReadingExtension(vLLMColocateWorkerExtension):
    """verl's extension of vLLM's worker, and :meth:`read_fingerprints`."""

    def read_fingerprints(self, sent: list[str], dtype: str | None) -> dict[str, Any]:
        """What this rank holds of the tensors ``sent``, in the form that
        :func:`~verl_pipeline.weight_sync.comparison.parse_reading` takes.

        Args:
            sent: names of the tensors in Hugging Face's format.
            dtype: torch's name of the dtype to look at them in; None: as they are held.
        """
        vllm_config = self.model_runner.vllm_config
        if vllm_config.quant_config is not None:
            reason = "the engine quantises its weights"
            return _make_answer(unchecked=dict.fromkeys(sent, reason))
        parallel = vllm_config.parallel_config
        hides_experts = getattr(parallel, "enable_eplb", False) or (
            parallel.enable_expert_parallel and parallel.data_parallel_size > 1
        )
        looked_at = getattr(torch, dtype) if dtype else None
        return read_model(self.model_runner.get_model(), sent, looked_at, hides_experts)


def read_model(
    model: Any, sent: Sequence[str], dtype: torch.dtype | None, hides_experts: bool
) -> dict[str, Any]:
    """What a model of vLLM's holds; see :meth:`WeightReadingExtension.read_fingerprints`.

    Args:
        hides_experts: whether other engines hold some of the experts, or copies of them.
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
    return _make_answer(parts, unchecked, placement.unheld, unsent)


def _make_answer(
    parts: Sequence[list] = (),
    unchecked: dict[str, str] | None = None,
    unheld: Sequence[str] = (),
    unsent: Sequence[str] = (),
) -> dict[str, Any]:
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
