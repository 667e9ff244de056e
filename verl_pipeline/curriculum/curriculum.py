"""What stands between the trainer and a selector: who is proposed when, and what is known then.

Invariants:
* Batch m is chosen from the outcomes of batches up to m - 1 - lag, and never from a later one's,
  although it may be known already: the lag is the largest staleness of the run, so that these are
  known whenever m is submitted. The choice depends on no timing. (Resumed with a smaller lag, a run
  goes on with what it had learnt.)
* A batch is chosen once. Until it is trained, whoever asks for it gets the same rows, after a
  resume, too.
* The floor: of every W batches in a row, at least floor(W * floor_share * batch size) places go to
  the prompts that have waited longest. A prompt that waits is overtaken by each of the others at
  most once, so every prompt is in every ceil(n / (floor_share * batch size)) batches in a row.
* No prompt is twice in a batch, and none is chosen again before its outcome is known, unless too
  few are left.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from verl_pipeline.curriculum.measures import CurriculumMeasures
from verl_pipeline.curriculum.protocol import GroupOutcome, PromptTable, Selector

FORMAT = 1
_NEVER = -1


class CurriculumMismatch(ValueError):
    """A checkpoint of another selector or of other prompts; one line."""


@dataclass(frozen=True)
class Proposal:
    """The prompts of a batch.

    Attributes:
        rows: int64, shape (batch size,).
        is_floor: bool, shape (batch size,); chosen because they have waited longest.
        is_blind: bool, shape (batch size,); chosen by the floor, or before anything was known of
            the prompt itself.
        predicted: float64, shape (batch size,); expected pass rate, NaN if nothing is expected.
    """

    rows: np.ndarray
    is_floor: np.ndarray
    is_blind: np.ndarray
    predicted: np.ndarray


class Curriculum:
    """See the module.

    Args:
        selector: not begun.
        prompts: of the training set.
        batch_size: prompts in a batch.
        lag: the largest staleness that the run may have.
        floor_share: of the places, in (0, 1].
        seed: of the run.
        fingerprint: of the training set: equal for equal prompts in the same order.

    Raises:
        ValueError: fewer prompts than a batch has places; one line.
    """

    def __init__(
        self,
        selector: Selector,
        prompts: PromptTable,
        *,
        batch_size: int,
        lag: int,
        floor_share: float,
        seed: int,
        fingerprint: str,
    ):
        if len(prompts) < batch_size:
            raise ValueError(
                f"{len(prompts)} prompts do not fill a batch of {batch_size}: use a smaller batch, "
                "or more data"
            )
        self.selector = selector
        self._prompts, self._batch_size = prompts, batch_size
        self._lag, self._fingerprint = lag, fingerprint
        # Exact, so that rounding cannot take a place from the floor.
        share = Fraction(0) if selector.covers_all else Fraction(str(floor_share))
        self._floor_places = share * batch_size
        selector.begin(prompts, seed)
        self._proposals: dict[int, Proposal] = {}
        # Known, and not yet shown to the selector.
        self._outcomes: dict[int, list[GroupOutcome]] = {}
        self._chosen = 0
        self._last_batch = np.full(len(prompts), _NEVER, dtype=np.int64)
        self._measures = CurriculumMeasures(len(prompts))
        # Among prompts that have waited equally long, the data loader's order decides.
        self._places = np.argsort(prompts.order(0), kind="stable")

    def propose(self, batch: int) -> np.ndarray:
        """Rows of a batch: int64, shape (batch size,). Batches are chosen in order, from 1."""
        if batch not in self._proposals:
            if batch != self._chosen + 1:
                raise RuntimeError(f"batch {batch} was asked for, after batch {self._chosen}")
            self._show_outcomes(batch - 1 - self._lag)
            self._proposals[batch] = self._choose(batch)
            self._chosen = batch
        return self._proposals[batch].rows

    def _show_outcomes(self, newest: int) -> None:
        for batch in sorted(self._outcomes):
            if batch <= newest:
                self.selector.observe(batch, self._outcomes.pop(batch))

    def _choose(self, batch: int) -> Proposal:
        count, n = self._batch_size, len(self._prompts)
        per_batch = self._floor_places
        waiting = np.lexsort((self._places, self._last_batch))
        floor = waiting[: math.floor(batch * per_batch) - math.floor((batch - 1) * per_batch)]
        free = np.ones(n, dtype=bool)
        free[floor] = False
        for rows in self._list_unknown():
            free[rows] = False
        wanted = count - len(floor)
        if free.sum() < wanted:
            # Of those whose outcome is not known yet, the ones that have waited longest.
            taken = set(floor.tolist())
            others = [row for row in waiting.tolist() if not free[row] and row not in taken]
            free[others[: wanted - int(free.sum())]] = True
        chosen = self.selector.choose(batch, wanted, free) if wanted else floor[:0]
        rows = np.concatenate([floor, chosen]).astype(np.int64)
        self._check_rows(rows)
        is_floor = np.arange(count) < len(floor)
        is_new = (self._last_batch[rows] == _NEVER) & np.isnan(self._prompts.pass_rates[rows])
        predicted = self.selector.predict(batch, rows)
        proposal = Proposal(rows, is_floor, is_floor | is_new, predicted)
        self._last_batch[rows] = batch
        self._measures.note_proposal(rows)
        return proposal

    def _list_unknown(self) -> Iterator[np.ndarray]:
        """Rows of the batches whose outcomes the selector has not seen: always the last ``lag``."""
        for proposal in self._proposals.values():
            yield proposal.rows
        for outcomes in self._outcomes.values():
            yield np.array([outcome.row for outcome in outcomes], dtype=np.int64)

    def _check_rows(self, rows: np.ndarray) -> None:
        n, count = len(self._prompts), self._batch_size
        if len(np.unique(rows)) != count or rows.min() < 0 or rows.max() >= n:
            raise RuntimeError(
                f"selector {self.selector.name} has to choose different rows from 0 to {n - 1} "
                f"for a batch of {count}; it chose {rows.tolist()[:20]}"
            )

    def observe(self, batch: int, outcomes: Sequence[GroupOutcome]) -> dict[str, float]:
        """What the prompts of a batch earned, when it is trained; see :func:`.make_outcomes`.

        Returns:
            ``curriculum/*`` metrics.
        """
        proposal = self._proposals.pop(batch)
        self._outcomes[batch] = list(outcomes)
        by_row = {outcome.row: outcome for outcome in outcomes}
        ordered = [by_row[row] for row in proposal.rows.tolist()]
        metrics = self._measures.measure(ordered, proposal.is_floor, proposal.predicted)
        waits = self._chosen - np.maximum(self._last_batch, 0)
        return metrics | {"curriculum/longest_wait": float(waits.max())}

    def get_proposal(self, batch: int) -> Proposal:
        """Of a batch that is chosen and not trained."""
        return self._proposals[batch]

    def state_dict(self) -> dict[str, Any]:
        """All that later choices follow from; not shared with this object."""
        return {
            "format": FORMAT,
            "selector": self.selector.name,
            "fingerprint": self._fingerprint,
            "prompts": len(self._prompts),
            "state": self.selector.state_dict(),
            "measures": self._measures.state_dict(),
            "chosen": self._chosen,
            "last_batch": self._last_batch.copy(),
            "proposals": {
                batch: (one.rows, one.is_floor, one.is_blind, one.predicted)
                for batch, one in self._proposals.items()
            },
            "outcomes": {
                batch: [
                    (one.row, one.successes, one.lengths, one.version, one.is_blind)
                    for one in outcomes
                ]
                for batch, outcomes in self._outcomes.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there.

        Raises:
            CurriculumMismatch: it is of another selector, or of other prompts.
        """
        if state["format"] != FORMAT:
            raise CurriculumMismatch(
                f"has format {state['format']}; this version reads {FORMAT}: resume it with the "
                "version that wrote it"
            )
        if state["selector"] != self.selector.name:
            raise CurriculumMismatch(
                f"was written with the selector {state['selector']}, not {self.selector.name}: "
                f"resume with {state['selector']}, or begin anew in another folder"
            )
        if state["fingerprint"] != self._fingerprint:
            raise CurriculumMismatch(
                f"was written with another training set (of {state['prompts']} prompts; this one "
                f"has {len(self._prompts)}): what was learnt of its prompts does not hold for "
                "these; resume with the same data.train_files, or begin anew in another folder"
            )
        self.selector.load_state_dict(state["state"])
        self._measures.load_state_dict(state["measures"])
        self._chosen = state["chosen"]
        self._last_batch = state["last_batch"].copy()
        self._proposals = {batch: Proposal(*one) for batch, one in state["proposals"].items()}
        self._outcomes = {
            batch: [GroupOutcome(*one) for one in outcomes]
            for batch, outcomes in state["outcomes"].items()
        }
