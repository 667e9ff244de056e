"""How a trajectory ended, in its tag: what the driver needs to know of it, in a few numbers.

TransferQueue's controller answers tags from memory. The fields that they stand for hold a value for
every token (``rm_scores``, ``responses``, ``response_mask``) and lie in the storage units.

Tags of the outcome: ``score`` (sum of ``rm_scores``; absent if a colocated reward model gives it
later), ``last_token`` (-1 of an empty response), ``mask_len`` (tokens that ``response_mask``
counts), ``num_turns``, ``generated_at``, ``max_tokens`` and ``version_spans`` (as in
``extra_fields``; absent if unknown), ``completed_at`` (when it was stored with its reward, in
seconds since the epoch), ``report`` (of ``reward_extra_info``, what our metrics read).

Invariant: a tag holds numbers and short texts only, since every listing of a partition carries it.
Tracebacks and whatever else a grader reports stay in the fields.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from verl_pipeline.trainer.version_spans import VERSION_SPANS

# Of a reward's report, what metrics and filters read; `figures` is one JSON text.
_REPORTED = ("verdict", "grader", "tier", "figures")
_PLAIN = (str, bool, int, float)


def describe_outcome(
    *,
    reward: float | None,
    response: Sequence[int],
    mask: Sequence[int],
    num_turns: int,
    extra_fields: Mapping[str, Any],
) -> dict[str, Any]:
    """Tags of one trajectory's outcome.

    Args:
        reward: None if it is not known yet.
        response: token ids.
        mask: 1 for each token that the model generated, else 0.
        extra_fields: verl's, of the agent loop's output.
    """
    tags: dict[str, Any] = {
        "last_token": int(response[-1]) if len(response) else -1,
        "mask_len": int(sum(mask)),
        "num_turns": int(num_turns),
    }
    tags |= {
        name: extra_fields[name]
        for name in ("generated_at", "max_tokens", VERSION_SPANS)
        if extra_fields.get(name) is not None
    }
    if reward is not None:
        report = extra_fields.get("reward_extra_info") or {}
        reported = {name: report[name] for name in _REPORTED if report.get(name) is not None}
        tags["score"] = float(np.float32(reward))
        tags["report"] = {
            name: value if isinstance(value, _PLAIN) else str(value)
            for name, value in reported.items()
        }
    return tags


def find_untold(tags: Sequence[Mapping[str, Any]], *names: str) -> list[int]:
    """Rows whose tags lack one of ``names``: another agent loop worker than ours stored them."""
    return [row for row, tag in enumerate(tags) if any(name not in tag for name in names)]
