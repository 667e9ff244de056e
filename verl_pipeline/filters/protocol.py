"""What a filter sees and what it may decide.

Invariants:
* A filter decides about each trajectory and changes nothing itself.
* A trajectory that one filter drops is not shown to the filters behind it. One without a reward is
  shown to none.
* Filters run once a batch: after rewards, before the batch is balanced over the trainer's ranks.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

import numpy as np


class Decision(Enum):
    """What happens to a trajectory."""

    KEEP = "keep"
    # The row leaves the batch: it counts in no mean, standard deviation or denominator, and costs
    # no compute.
    DROP = "drop"
    # The row stays in statistics and denominators; its advantage is 0.
    ZERO_ADVANTAGE = "zero_advantage"


@dataclass(frozen=True)
class BatchView:
    """One batch, one entry a trajectory, in the data loader's order.

    Attributes:
        uids: prompt of each trajectory; equal for the members of a group.
        sessions: int64, shape (n,); which member of its group sampled it. A member that an agent
            loop split has several trajectories.
        rewards: float64, shape (n,); sum of the token-level scores. NaN where there is no reward;
            no filter sees such a row.
        verdicts: verdict of the grader, or None where the reward function reports none.
        response_lengths: int64, shape (n,); tokens.
        limits: int64, shape (n,); tokens that the request of each could have generated.
        truncated: bool, shape (n,); whether it was cut off (see
            :mod:`verl_pipeline.filters.truncation`).
    """

    uids: list[str]
    sessions: np.ndarray
    rewards: np.ndarray
    verdicts: list[str | None]
    response_lengths: np.ndarray
    limits: np.ndarray
    truncated: np.ndarray

    def __len__(self) -> int:
        return len(self.uids)

    def select_rows(self, rows: np.ndarray) -> "BatchView":
        """View of these rows only (int64 positions, in order)."""
        return BatchView(
            [self.uids[row] for row in rows],
            self.sessions[rows],
            self.rewards[rows],
            [self.verdicts[row] for row in rows],
            self.response_lengths[rows],
            self.limits[rows],
            self.truncated[rows],
        )

    def merge_sessions(self) -> "BatchView":
        """One entry a member of a group, in order of its last row: the view for counts and means.

        As in verl, the last row speaks for its session; lengths are sums, and a session is
        truncated if one of its rows is.
        """
        rows: dict[tuple[str, int], list[int]] = {}
        for row, member in enumerate(zip(self.uids, self.sessions.tolist(), strict=True)):
            rows.setdefault(member, []).append(row)
        if len(rows) == len(self):
            return self
        groups = sorted(rows.values(), key=lambda group: group[-1])
        last = self.select_rows(np.array([group[-1] for group in groups], dtype=np.int64))
        return replace(
            last,
            response_lengths=np.array([self.response_lengths[group].sum() for group in groups]),
            limits=np.array([self.limits[group].sum() for group in groups]),
            truncated=np.array([self.truncated[group].any() for group in groups], dtype=bool),
        )


class Filter(Protocol):
    """Decides about the trajectories of a batch.

    Attributes:
        name: for metrics and messages.
        only_drops: whether it never asks for zero advantage; such a filter also works inside verl's
            replay buffer.
    """

    name: str
    only_drops: bool

    def decide(self, batch: BatchView) -> list[Decision]:
        """One decision a trajectory, in the order of the view."""
