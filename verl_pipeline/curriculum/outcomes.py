"""What the groups of a trained batch earned, as numbers in [0, 1].

Invariants:
* A reward outside [0, 1] is no pass rate, and is refused: only the user knows which answers count
  as solved.
* A member without a reward, or that no grader could judge, counts neither as solved nor as failed.
"""

from collections.abc import Sequence

import numpy as np

from verl_pipeline.curriculum.curriculum import Proposal
from verl_pipeline.curriculum.protocol import GroupOutcome


class RewardOutOfRange(ValueError):
    """A reward that is no pass rate; one line."""


def make_outcomes(
    proposal: Proposal,
    members: Sequence[int],
    rewards: np.ndarray,
    lengths: np.ndarray,
    versions: np.ndarray,
    solved_at: float | None,
) -> list[GroupOutcome]:
    """One outcome for each prompt of a batch, in the order of the proposal.

    Args:
        proposal: the prompts of the batch.
        members: for each of m trajectories the position of its prompt in the batch.
        rewards: float64, shape (m,); NaN where there is none, or no grader could judge.
        lengths: int64, shape (m,); response tokens.
        versions: int64, shape (m,); the oldest weights that sampled a token of it.
        solved_at: see :class:`verl_pipeline.curriculum.settings.CurriculumSettings`.

    Raises:
        RewardOutOfRange: naming the prompt, the reward and the setting.
    """
    places = np.asarray(members, dtype=np.int64)
    graded = ~np.isnan(rewards)
    if solved_at is None:
        wrong = np.flatnonzero(graded & ((rewards < 0) | (rewards > 1)))
        if len(wrong):
            row = int(proposal.rows[places[wrong[0]]])
            raise RewardOutOfRange(
                f"solved_at=null: prompt {row} of the training set earned a reward of "
                f"{rewards[wrong[0]]:g}, and a pass rate is a mean of rewards from 0 to 1; set "
                "solved_at to the reward from which on an answer counts as solved"
            )
        successes = rewards
    else:
        successes = np.where(graded, (rewards >= solved_at).astype(np.float64), np.nan)
    outcomes = []
    for place, row in enumerate(proposal.rows.tolist()):
        group = places == place
        outcomes.append(
            GroupOutcome(
                row,
                np.asarray(successes[group & graded], dtype=np.float64),
                np.asarray(lengths[group], dtype=np.int64),
                int(versions[group].min()) if group.any() else -1,
                bool(proposal.is_blind[place]),
            )
        )
    return outcomes
