"""The data loader's own order, epoch after epoch: what a run without a selector trains.

Invariant: as the loader does, it leaves out what remains of an epoch that fills no batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from verl_pipeline.curriculum.protocol import GroupOutcome, PromptTable
from verl_pipeline.curriculum.registry import register_selector


@register_selector("uniform")
class UniformSelector:
    """Learns nothing; for the ``curriculum/*`` metrics of the order that a run has anyway."""

    name = "uniform"
    covers_all = True

    def begin(self, prompts: PromptTable, seed: int) -> None:
        self._prompts = prompts
        self._epoch = self._position = 0

    def choose(self, batch: int, count: int, free: np.ndarray) -> np.ndarray:
        if self._position + count > len(self._prompts):
            self._epoch, self._position = self._epoch + 1, 0
        order = self._prompts.order(self._epoch)
        self._position += count
        return order[self._position - count : self._position]

    def predict(self, batch: int, rows: np.ndarray) -> np.ndarray:
        return np.full(len(rows), np.nan)

    def observe(self, batch: int, outcomes: Sequence[GroupOutcome]) -> None:
        """Nothing depends on it."""

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._epoch, self._position = state["epoch"], state["position"]
