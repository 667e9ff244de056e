"""verl's metrics of a batch whose tokens share their row's advantage.

Stands for what ``compute_data_metrics`` of ``verl.trainer.ppo.metric_utils`` is called with.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from verl.protocol import DataProto
from verl.trainer.ppo.metric_utils import compute_data_metrics


@dataclass(frozen=True)
class RowValues:
    """A step's values by row of ``keys``: float32, shape (n,); ``counts`` int64, shape (n,)."""

    keys: list[str]
    counts: torch.Tensor
    scores: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor


def compute_row_metrics(
    values: RowValues,
    prompts: torch.Tensor,
    lengths: torch.Tensor,
    shown: torch.Tensor,
    turns: np.ndarray,
) -> dict[str, Any]:
    """verl's ``compute_data_metrics``; means over tokens weigh each row by its tokens.

    Args:
        prompts, lengths: tokens by row, int64, shape (n,).
        shown: rows that are no padding, bool, shape (n,).
        turns: of the rows shown.
    """
    counts = values.counts[shown]
    one = torch.zeros(1)
    columns = {
        "token_level_scores": values.scores[shown][:, None],
        "token_level_rewards": values.scores[shown][:, None],
        "advantages": values.advantages[shown][:, None],
        "returns": values.returns[shown][:, None],
        "response_mask": (counts > 0).long()[:, None],
        # Only their widths are read.
        "prompts": one.expand(len(counts), int(prompts.max())),
        "responses": one.expand(len(counts), int(lengths.max())),
        "prompt_length": prompts[shown].float(),
        "response_length": lengths[shown].float(),
    }
    rows = DataProto(TensorDict(columns, len(counts)))
    rows.non_tensor_batch["__num_turns__"] = np.asarray(turns, dtype=np.int32)
    metrics = compute_data_metrics(batch=rows, use_critic=False)
    size = int(counts.sum())
    if size:
        for name in ("advantages", "returns"):
            total = (getattr(values, name)[shown].double() * counts).sum()
            metrics[f"critic/{name}/mean"] = float(total) / size
    return metrics
