"""``learnability`` with evidence shared between prompts that are alike.

A prompt that has earned nothing is judged by its cell (its source, then its difficulty tag within
the source) and, with ``text``, by prompts whose wording is near (:mod:`.neighbours`). So most of
what cannot be learnt from is recognized before it is paid for.
"""

from collections.abc import Sequence

import numpy as np

from verl_pipeline.curriculum.learnability import LearnabilitySelector
from verl_pipeline.curriculum.neighbours import find_neighbours
from verl_pipeline.curriculum.protocol import PromptTable
from verl_pipeline.curriculum.registry import register_selector

BY = ("source", "difficulty", "text")


@register_selector("similar")
class SimilarSelector(LearnabilitySelector):
    """See the module.

    Args:
        by: what makes prompts alike: some of ``source``, ``difficulty`` and ``text``.
        nearness: with ``text``, the Jaccard similarity of the words from which on prompts are near.
        shared_weight: with ``text``, samples that all neighbours of a prompt together count as, at
            most.
        half_life, measured_weight: as of ``learnability``.

    Raises:
        ValueError: a setting out of range, or ``text`` without the package datasketch.
    """

    name = "similar"

    def __init__(
        self,
        by: Sequence[str] = ("source", "difficulty"),
        nearness: float = 0.5,
        shared_weight: float = 4.0,
        half_life: float = 64.0,
        measured_weight: float = 4.0,
    ):
        super().__init__(half_life, measured_weight)
        unknown = [word for word in by if word not in BY] if not isinstance(by, str) else [by]
        if unknown or not by:
            raise ValueError(f"by={by}: must be a list of some of {', '.join(BY)}")
        if not 0 < nearness <= 1:
            raise ValueError(f"nearness={nearness}: must be above 0 and at most 1")
        if not shared_weight >= 0:
            raise ValueError(f"shared_weight={shared_weight}: must be 0 or more")
        self._by, self._nearness, self._shared_weight = tuple(by), nearness, shared_weight
        if "text" in by:
            find_neighbours([], nearness)  # refuses now what would fail after the data is loaded

    def begin(self, prompts: PromptTable, seed: int) -> None:
        super().begin(prompts, seed)
        self._pairs = None
        if "text" in self._by:
            self._pairs = find_neighbours(prompts.read_texts(), self._nearness)

    def _make_levels(self, prompts: PromptTable) -> list[np.ndarray]:
        labels = {"source": prompts.sources, "difficulty": prompts.difficulties}
        levels = super()._make_levels(prompts)
        cells: list[tuple[str, ...]] = [()] * len(prompts)
        for word in ("source", "difficulty"):
            if word in self._by:
                cells = [(*cell, label) for cell, label in zip(cells, labels[word], strict=True)]
                numbers = {cell: number for number, cell in enumerate(dict.fromkeys(cells))}
                levels.append(np.array([numbers[cell] for cell in cells], dtype=np.int64))
        return levels

    def _read_evidence(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        solved, tried = super()._read_evidence(batch)
        if self._pairs is None:
            return solved, tried
        n, pairs = len(tried), self._pairs
        near_solved = np.bincount(pairs.rows, pairs.weights * solved[pairs.others], minlength=n)
        near_tried = np.bincount(pairs.rows, pairs.weights * tried[pairs.others], minlength=n)
        share = np.minimum(1.0, self._shared_weight / np.maximum(near_tried, 1e-9))
        return solved + share * near_solved, tried + share * near_tried
