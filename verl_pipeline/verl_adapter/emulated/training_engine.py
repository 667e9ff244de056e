"""verl's training engine in the time of the described trainer, on one rank for all of its GPUs.

It is registered as ``fsdp2`` for a device of its own, which ``VERL_ENGINE_DEVICE`` chooses: verl
refuses other names of strategies.

Invariants:
* What verl's worker receives has the shapes of a real engine's outputs.
* The state is one small tensor, which counts the updates: it travels with the weights and lies in
  checkpoints, so both can be checked.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from verl.workers.engine.base import BaseEngine, BaseEngineCtx, EngineRegistry

from verl_pipeline.emulated.costs import TrainerCosts
from verl_pipeline.emulated.journal import Journal
from verl_pipeline.verl_adapter.emulated.plugin import (
    BYPASS_VARIABLE,
    ENGINE_DEVICE,
    load_run,
    read_alphabet,
)
from verl_pipeline.verl_adapter.emulated.rollout_server import LOG_PROB

STATE_FILE = "emulated.pt"
WEIGHT = "emulated.weight"
WEIGHT_SIZE = 1024
# A prompt and the name of its sample are shorter.
NAMING_TOKENS = 80


@EngineRegistry.register(model_type="language_model", backend="fsdp2", device=ENGINE_DEVICE)
class EmulatedEngine(BaseEngine):
    """See the module; the configurations are verl's, of which only the learning rate is used."""

    def __init__(
        self, model_config: Any, engine_config: Any, optimizer_config: Any, checkpoint_config: Any
    ):
        super().__init__()
        self.engine_config = engine_config
        self._learning_rate = getattr(optimizer_config, "lr", 0.0)
        self._run = load_run()
        self._alphabet = read_alphabet(model_config.tokenizer)
        is_bypassed = os.environ.get(BYPASS_VARIABLE) == "1"
        self._costs = TrainerCosts(self._run, is_bypassed)
        self._clock = self._run.open_clock()
        self._journal = Journal(self._run.journal, "trainer")
        self._weight = torch.zeros(WEIGHT_SIZE)
        self.mode: str | None = None

    def initialize(self) -> None:
        """The state is there from the beginning."""

    @property
    def is_param_offload_enabled(self) -> bool:
        return False

    @property
    def is_optimizer_offload_enabled(self) -> bool:
        return False

    def train_mode(self, **kwargs: Any) -> AbstractContextManager:
        return BaseEngineCtx(self, "train", **kwargs)  # type: ignore[return-value]

    def eval_mode(self, **kwargs: Any) -> AbstractContextManager:
        return BaseEngineCtx(self, "eval", **kwargs)  # type: ignore[return-value]

    def optimizer_zero_grad(self) -> None:
        """There are no gradients."""

    def optimizer_step(self) -> float:
        """Count an update; returns a norm of no gradients."""
        self._weight += 1.0
        return 0.0

    def lr_scheduler_step(self) -> float:
        return self._learning_rate

    def forward_backward_batch(
        self, data: TensorDict, loss_function: Callable | None, forward_only: bool = False
    ) -> dict[str, Any]:
        """Take the time of a pass over ``data``.

        Args:
            data: jagged ``input_ids``, int64; of ours, so that each row names its trajectory.

        Returns:
            ``model_output`` (jagged ``log_probs`` and ``entropy``, float32, a value for each token
            of ``input_ids``), ``loss`` and ``metrics``.
        """
        ids = data["input_ids"]
        places = self._find_places(ids)
        tokens = self._run.count_tokens(places)
        times = self._clock.times
        rewarded = float(np.nanmax(times.rewarded[places], initial=0.0))
        start = self._clock.begin(max(times.driver_time, rewarded))
        if forward_only:
            kind, seconds = "log_prob", self._costs.compute_log_probs(tokens)
        else:
            kind, seconds = "update", self._costs.compute_update(tokens)
        with times.train(start + seconds, updates=0 if forward_only else 1):
            self._clock.sleep(start + seconds)
            times.driver_time = start + seconds
        step = int(self._weight[0]) + 1
        self._journal.add(kind, "rank 0", start, start + seconds, step)
        values = torch.full_like(ids.values(), LOG_PROB, dtype=torch.float32)
        log_probs = torch.nested.nested_tensor_from_jagged(values, ids.offsets())
        output = {"log_probs": log_probs, "entropy": -log_probs} if forward_only else {}
        return {"model_output": output, "loss": [0.0], "metrics": {}}

    def get_per_tensor_param(
        self, **_kwargs: Any
    ) -> tuple[Iterator[tuple[str, torch.Tensor]], None]:
        """The state; past the barrier, publication takes its time here."""
        if self._run.flows:
            start = self._clock.begin(self._clock.times.driver_time)
            end = start + self._run.cluster.weights.publish_s
            with self._clock.times.train(end):
                self._clock.sleep(end)
                self._clock.times.publish(end)
            self._journal.add("publish", "weights", start, end)
        return iter([(WEIGHT, self._weight.clone())]), None

    def get_data_parallel_size(self) -> int:
        return 1

    def get_data_parallel_rank(self) -> int:
        return 0

    def get_data_parallel_group(self) -> Any:
        return torch.distributed.group.WORLD

    def is_mp_src_rank_with_outputs(self) -> bool:
        return True

    def to(
        self, device: str, model: bool = True, optimizer: bool = True, grad: bool = True
    ) -> None:
        """The state stays where it is."""

    def save_checkpoint(self, local_path: str, *_args: Any, **_kwargs: Any) -> None:
        folder = Path(local_path)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self._weight, folder / STATE_FILE)

    def load_checkpoint(self, local_path: str, *_args: Any, **_kwargs: Any) -> None:
        self._weight = torch.load(Path(local_path) / STATE_FILE)

    def disable_adapter(self) -> AbstractContextManager:
        return nullcontext()

    def _find_places(self, ids: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Which trajectories the rows are."""
        offsets = ids.offsets().tolist()
        values = ids.values().tolist()
        places = []
        for begin, end in zip(offsets, offsets[1:], strict=False):
            row, sample = self._alphabet.read_prompt(
                values[begin : min(end, begin + NAMING_TOKENS)]
            )
            places.append((row, sample or 0))
        rows, samples = np.array(places).T
        return self._run.find_places(rows, samples)
