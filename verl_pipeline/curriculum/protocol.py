"""What a selector sees, and what it may decide.

Invariants:
* A selector is a function of the prompts, its settings, the seed and the outcomes that it was
  shown, in the order in which it was shown them: never of time. Its randomness follows from
  (seed, batch) alone (:func:`make_random`), so that a resumed run chooses as the first one did.
* Batch m is chosen from the outcomes of batches up to m - 1 - s, s being the largest staleness
  that the run may have: these, and no others, are certain to be known by then
  (:mod:`verl_pipeline.curriculum.curriculum`).
* A row is the position of a prompt in the training set, after verl's own filters.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class PromptTable:
    """What is known of the n prompts of the training set before any is sampled.

    Attributes:
        order: the data loader's order of the rows in an epoch (from 0): int64, shape (n,).
        sources: of each prompt, ``extra_info.source`` or else ``data_source``.
        difficulties: ``extra_info.difficulty``; "" where there is none.
        pass_rates: float64, shape (n,); measured before the training (``extra_info.pass_rate``),
            NaN where that was not done.
        read_texts: the prompts' texts, for whoever compares them; slow.
    """

    order: Callable[[int], np.ndarray]
    sources: Sequence[str]
    difficulties: Sequence[str]
    pass_rates: np.ndarray
    read_texts: Callable[[], Sequence[str]]

    def __len__(self) -> int:
        return len(self.pass_rates)


@dataclass(frozen=True)
class GroupOutcome:
    """What the sampling of one prompt earned.

    Attributes:
        row: of the prompt.
        successes: float64, shape (members,), each in [0, 1]: what every member that could be
            graded earned; their mean estimates the pass rate. There may be none.
        lengths: int64, shape (members,); response tokens.
        version: the oldest weights that sampled a token of it; -1 if nothing was sampled.
        is_blind: whether the prompt was chosen without looking at what it had earned before (it
            had earned nothing yet, or the floor chose it). Such outcomes tell of the whole data;
            the others only of what was selected.
    """

    row: int
    successes: np.ndarray
    lengths: np.ndarray
    version: int
    is_blind: bool


class Selector(Protocol):
    """Chooses prompts.

    Attributes:
        name: for messages and checkpoints.
        covers_all: whether it gives every prompt its turn by itself; it then fills whole batches.
            Of another's batches, the floor takes a share
            (:class:`verl_pipeline.curriculum.curriculum.Curriculum`).
    """

    name: str
    covers_all: bool

    def begin(self, prompts: PromptTable, seed: int) -> None:
        """Called once, before anything else."""

    def choose(self, batch: int, count: int, free: np.ndarray) -> np.ndarray:
        """Rows of ``count`` different prompts for a batch: int64, shape (count,).

        Args:
            free: bool, shape (n,); rows that may be chosen, at least ``count``. One that covers all
                by itself may ignore it.
        """

    def predict(self, batch: int, rows: np.ndarray) -> np.ndarray:
        """The pass rates that it expects of rows: float64, NaN where it expects nothing."""

    def observe(self, batch: int, outcomes: Sequence[GroupOutcome]) -> None:
        """What a batch earned; each batch once, in order."""

    def state_dict(self) -> dict[str, Any]:
        """All that it has learnt: plain Python values and numpy arrays, not shared with it."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""


def make_random(seed: int, batch: int) -> np.random.RandomState:
    """The random numbers for the choice of a batch.

    RandomState's stream of numbers is frozen (NEP 19), unlike Generator's.
    """
    return np.random.RandomState([seed % 2**32, batch])
