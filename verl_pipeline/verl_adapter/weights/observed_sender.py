"""Notes what a checkpoint engine sends, so that what the rollout engine holds can be checked.

Invariants:
* Only the sender (actor rank 0) looks at weights, and only in a sync that was announced.
* What is sent stays as it was.
"""

from collections.abc import Iterator
from typing import Any

import torch

from verl_pipeline.weight_sync.fingerprint import TensorSum, observe_weights


class ObservedSender:
    """Put before a checkpoint engine of verl's or ours: it fingerprints the weights it sends."""

    is_master: bool
    _observed: dict[str, TensorSum] | None = None
    _observed_dtype: torch.dtype | None = None

    def begin_observation(self, dtype: str | None) -> None:
        """Fingerprint the weights of the next sync.

        Args:
            dtype: torch's name of the dtype that the rollout engine holds weights in; None if it
                is not known.
        """
        self._observed = {}
        self._observed_dtype = getattr(torch, dtype) if dtype else None

    def end_observation(self) -> dict[str, TensorSum]:
        """Fingerprints of what was sent since :meth:`begin_observation`, by name.

        They are empty on the ranks that send nothing.
        """
        observed, self._observed = self._observed or {}, None
        return observed

    async def send_weights(
        self, weights: Iterator[tuple[str, torch.Tensor]], global_steps: int | None = None
    ) -> Any:
        """As the engine's own."""
        return await super().send_weights(self.observe(weights), global_steps=global_steps)  # type: ignore[misc]

    def observe(
        self, weights: Iterator[tuple[str, torch.Tensor]]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """``weights``, fingerprinted on their way if this sync was announced."""
        if self._observed is None or not self.is_master:
            return weights
        return observe_weights(weights, self._observed, self._observed_dtype)
