"""What the teacher servers of on-policy distillation say about one trajectory.

Invariants:
* A log-prob that a teacher did not give is never a number: verl would train towards it. The row has
  NaN in its place and the verdict ``infrastructure``, so that it leaves the batch before the update
  (:mod:`verl_pipeline.filters.filter_chain`), whatever filters there are.
* A teacher that scores other tokens than the student's has answered nothing.
"""

from collections.abc import Sequence
from typing import Any

import torch

from verl_pipeline.verl_adapter.rewards.reward_check import mark_ungraded

IDS, LOG_PROBS = "teacher_ids", "teacher_logprobs"


class UnusableTeacherAnswer(ValueError):
    """Log-probs are missing, are not numbers, or are of other tokens; one line."""


def check_teacher_answer(output: Any, sequence: Sequence[int], *, uses_topk: bool) -> None:
    """Refuse an answer that verl's loss would take for what it is not.

    Args:
        output: verl's ``AgentLoopOutput``, with the answer in ``extra_fields``.
        sequence: token ids of prompt and response; entry i of an answer is about token i + 1, and
            its last entry is about none.
        uses_topk: whether an entry has the teacher's likeliest tokens, not the student's.

    Raises:
        UnusableTeacherAnswer: naming the first token without a log-prob.
    """
    ids, log_probs = (output.extra_fields.get(name) for name in (IDS, LOG_PROBS))
    if ids is None or log_probs is None:
        raise UnusableTeacherAnswer("the teacher gave no log-probs")
    if len(log_probs) != len(sequence) or len(ids) != len(sequence):
        raise UnusableTeacherAnswer(
            f"the teacher gave log-probs of {len(log_probs)} tokens, expected {len(sequence)}"
        )
    first = len(sequence) - len(output.response_ids) - 1
    is_number = torch.isfinite(log_probs[first:-1]).all(dim=-1)
    if not bool(is_number.all()):
        place = int((~is_number).nonzero()[0])
        raise UnusableTeacherAnswer(f"the teacher gave no log-prob of response token {place}")
    if uses_topk:
        return
    scored = ids[first:-1, 0].tolist()
    for place, (own, other) in enumerate(zip(output.response_ids, scored, strict=True)):
        if own != other:
            raise UnusableTeacherAnswer(
                f"the teacher scored token {other} as response token {place}, which is {own}"
            )


def mark_unscored(output: Any, sequence: Sequence[int], width: int, reason: str) -> None:
    """Give a trajectory NaN as its teacher's log-probs and the verdict ``infrastructure``.

    Args:
        width: log-probs of an entry: k of a top-k loss, or 1. All rows of a batch have as many.
    """
    output.extra_fields[IDS] = torch.zeros(len(sequence), width, dtype=torch.int32)
    output.extra_fields[LOG_PROBS] = torch.full((len(sequence), width), float("nan"))
    mark_ungraded(output, reason)
