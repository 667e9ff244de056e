"""What a trainer rank makes of its own rows, so that no field of every token passes the driver.

In verl the ranks write log-probs, and the driver fetches them, computes what the update needs, and
writes it back for the ranks. Importance weights and rejection of a row follow from that row alone.
Here the rank that has computed a row's log-probs computes those too, and sends the driver a few
numbers a row (:data:`STATISTICS`). The driver answers with one number a row, its advantage.

Invariants:
* What the ranks store, and what the update is called with, has verl's names, contents and dtypes.
* A rank without a plan of the driver does what verl's does.
* Statistics are sums, largest and smallest values of rows: in any order they give the same metrics.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict

from verl_pipeline.verl_adapter.jagged.correction import correct_tokens
from verl_pipeline.verl_adapter.jagged.log_probs import measure_probabilities
from verl_pipeline.verl_adapter.jagged.rows import (
    TokenRows,
    cut_responses,
    expand_rows,
    make_nested,
    sum_rows,
)

# Of the batch, in verl's extra_info: how the log-probs are used, and by what the weights are
# divided (see `correction`).
PLAN, NORM_FACTOR = "row_plan", "row_norm_factor"
# Fields: float32, one row of a number a column (see `name_columns`), and one number a row.
STATISTICS, ADVANTAGES = "row_statistics", "row_advantages"
# Fields that a rank's computation reads beside the model's output.
READ = ("response_mask", "rollout_log_probs")
OLD_LOG_PROBS, REF_LOG_PROB = "old_log_probs", "ref_log_prob"


@dataclass(frozen=True)
class RowPlan:
    """What the driver wants of the ranks' log-probs.

    Attributes:
        field: the name under which they are stored, cut to the response tokens.
        measured: whether the driver wants :data:`STATISTICS`.
        compared: whether the rollout's log-probs are there to compare with.
        correction: ``algorithm.rollout_correction`` if the ranks compute it, else None.
    """

    field: str
    measured: bool = False
    compared: bool = False
    correction: Mapping[str, Any] | None = None


def make_fields(data: TensorDict, output: TensorDict, plan: RowPlan) -> dict[str, torch.Tensor]:
    """Fields that a rank stores instead of ``log_probs`` and ``entropy``.

    Args:
        data: what the log-probs were computed of; jagged ``response_mask`` and, if compared,
            ``rollout_log_probs``, a value for each response token.
        output: jagged ``log_probs`` and, if measured, ``entropy``; a value for each token of prompt
            and response, of which position i belongs to token i + 1.

    Returns:
        ``plan.field`` (the log-probs' dtype) and, if the plan says so, :data:`STATISTICS`,
        ``rollout_is_weights`` (float32, not normalized yet), ``response_mask`` (int64, if rejection
        takes tokens out).
    """
    mask = data["response_mask"]
    lengths = mask.offsets().diff()
    stored = cut_responses(output["log_probs"], lengths)
    fields = {plan.field: make_nested(stored, lengths)}
    if not plan.measured:
        return fields
    counted = mask.values() > 0
    rows = TokenRows(lengths, None if bool(counted.all()) else counted)
    columns, tokens = _measure_rows(
        rows,
        entropy=cut_responses(output["entropy"], lengths),
        old=stored,
        rollout=data["rollout_log_probs"].values() if plan.compared else None,
        correction=plan.correction,
    )
    fields |= {name: make_nested(values, lengths) for name, values in tokens.items()}
    fields[STATISTICS] = torch.stack(list(columns.values()), dim=1)
    return fields


def _measure_rows(
    rows: TokenRows,
    *,
    entropy: torch.Tensor,
    old: torch.Tensor,
    rollout: torch.Tensor | None,
    correction: Mapping[str, Any] | None,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Columns of :data:`STATISTICS` (float32, shape (n,)) and fields of response tokens, by name.

    Args:
        entropy, old, rollout: of all response tokens, shape (T,).
    """
    counts = rows.counts
    columns = {
        "count": counts.float(),
        "entropy": sum_rows(rows.select(entropy).float(), counts),
    }
    fields: dict[str, torch.Tensor] = {}
    if rollout is None:
        return columns, fields
    old, rollout = rows.select(old).float(), rows.select(rollout).float()
    columns |= measure_probabilities(old, rollout, counts)
    if correction is not None:
        corrected = correct_tokens(old, rollout, counts, correction)
        columns |= corrected.columns
        if corrected.weights is not None:
            fields["rollout_is_weights"] = rows.spread(corrected.weights)
        if corrected.kept is not None:
            mask = rows.keep(corrected.kept).mask
            assert mask is not None
            fields["response_mask"] = mask.long()
    return columns, fields


def name_columns(plan: RowPlan) -> list[str]:
    """The columns of :data:`STATISTICS`, in order."""
    nothing = torch.zeros(0)
    columns, _fields = _measure_rows(
        TokenRows(torch.zeros(1, dtype=torch.int64)),
        entropy=nothing,
        old=nothing,
        rollout=nothing if plan.compared else None,
        correction=plan.correction,
    )
    return list(columns)


def prepare_update(data: TensorDict, norm_factor: float | None) -> None:
    """Give ``data`` what verl's update reads: ``advantages`` from :data:`ADVANTAGES`, 0 where
    ``response_mask`` is (float32, jagged), and weights divided by ``norm_factor`` if there is one.
    """
    if ADVANTAGES in data:
        mask, advantages = data["response_mask"], data.pop(ADVANTAGES)
        lengths = mask.offsets().diff()
        counted = mask.values() > 0
        values = expand_rows(advantages, lengths)
        data["advantages"] = make_nested(
            values if bool(counted.all()) else values.masked_fill_(~counted, 0.0), lengths
        )
    if norm_factor is not None:
        weights = data["rollout_is_weights"]
        data["rollout_is_weights"] = make_nested(
            weights.values() / norm_factor, weights.offsets().diff()
        )
