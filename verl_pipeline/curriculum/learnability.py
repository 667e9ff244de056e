"""Prompts that the policy solves about half of the time: their groups have the strongest signal.

The variance of a group's rewards, and with it the size of its group-relative gradient, is
p (1 - p), p being the prompt's pass rate. p has a Beta distribution: what all data earned, as the
prior, and what the prompt itself earned, both discounted (:mod:`.evidence`). Thompson sampling: one
p is drawn for each prompt, and the prompts with the largest p (1 - p) are chosen, so that a prompt
of which little is known is tried now and then.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from verl_pipeline.curriculum.evidence import CellPriors, PromptEvidence
from verl_pipeline.curriculum.protocol import GroupOutcome, PromptTable, make_random
from verl_pipeline.curriculum.registry import register_selector


@register_selector("learnability")
class LearnabilitySelector:
    """See the module.

    Args:
        half_life: batches after which an outcome counts half.
        measured_weight: samples that a pass rate measured before the training counts as.

    Raises:
        ValueError: a setting out of range.
    """

    name = "learnability"
    covers_all = False

    def __init__(self, half_life: float = 64.0, measured_weight: float = 4.0):
        if not half_life > 0:
            raise ValueError(f"half_life={half_life}: must be a positive number of batches")
        if not measured_weight >= 0:
            raise ValueError(f"measured_weight={measured_weight}: must be 0 (ignored) or more")
        self._half_life, self._measured_weight = half_life, measured_weight

    def begin(self, prompts: PromptTable, seed: int) -> None:
        self._seed = seed
        self._evidence = PromptEvidence(prompts.pass_rates, self._measured_weight, self._half_life)
        self._priors = CellPriors(self._make_levels(prompts), self._half_life)

    def _make_levels(self, prompts: PromptTable) -> list[np.ndarray]:
        return [np.zeros(len(prompts), dtype=np.int64)]

    def _read_evidence(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Solved and tried samples that speak for each prompt: float64, shape (n,) each."""
        return self._evidence.read(batch)

    def _compute_beliefs(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        solved, tried = self._read_evidence(batch)
        a, b = self._priors.compute()
        return a + solved, b + tried - solved

    def choose(self, batch: int, count: int, free: np.ndarray) -> np.ndarray:
        a, b = self._compute_beliefs(batch)
        rates = make_random(self._seed, batch).beta(a, b)
        scores = np.where(free, rates * (1 - rates), -1.0)
        return np.argsort(-scores, kind="stable")[:count].astype(np.int64)

    def predict(self, batch: int, rows: np.ndarray) -> np.ndarray:
        a, b = self._compute_beliefs(batch)
        return (a / (a + b))[rows]

    def observe(self, batch: int, outcomes: Sequence[GroupOutcome]) -> None:
        self._evidence.add(batch, outcomes)
        self._priors.add(batch, outcomes)

    def state_dict(self) -> dict[str, Any]:
        return {"evidence": self._evidence.state_dict(), "priors": self._priors.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._evidence.load_state_dict(state["evidence"])
        self._priors.load_state_dict(state["priors"])
