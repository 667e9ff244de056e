"""Reads, inside vLLM's worker, what it holds: of the weights that the trainer sent, and of its
node.

vLLM adds :class:`WeightReadingExtension` to its worker's class
(``rollout.engine_kwargs.vllm.worker_extension_cls``); ``collective_rpc`` calls it on every rank.

Invariant: nothing is added to vLLM's worker but the two methods.
"""

from typing import Any

import psutil
import torch
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

from verl_pipeline.run_end import note_processes
from verl_pipeline.verl_adapter.weights.held_weights import make_answer, read_model


class WeightReadingExtension(vLLMColocateWorkerExtension):
    """verl's extension of vLLM's worker, and the methods below."""

    def note_process(self) -> list[list]:
        """:func:`~verl_pipeline.run_end.note_processes` of this worker."""
        return note_processes([psutil.Process()])

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
            return make_answer(unchecked=dict.fromkeys(sent, reason))
        parallel = vllm_config.parallel_config
        hides_experts = getattr(parallel, "enable_eplb", False) or (
            parallel.enable_expert_parallel and parallel.data_parallel_size > 1
        )
        looked_at = getattr(torch, dtype) if dtype else None
        return read_model(self.model_runner.get_model(), sent, looked_at, hides_experts)
