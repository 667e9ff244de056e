"""How far the weights that sampled a batch are from those that it updates, by age.

The weights of a token's loss are ratios of two policies: that of the trainer before the update over
the one that sampled the token, whose log-prob came with it, whatever version that was.

Invariants:
* All figures are of the ratios before truncation: a truncated weight looks closer than it is.
* A trajectory has the age of its oldest token, in updates.
"""

from dataclasses import dataclass

import numpy as np

PREFIX = "pipeline/correction"
EFFECTIVE = f"{PREFIX}/effective_share"


@dataclass(frozen=True)
class RowDivergence:
    """Sums over the tokens of each of n trajectories that count in the loss.

    Attributes:
        ages: updates since the weights of the oldest token, int64, shape (n,).
        tokens: how many, int64, shape (n,); 0 in rows that pad a batch.
        ratios, squares: of the ratios, and of their squares; float64, shape (n,).
        divergences: of ``r - 1 - log r``, whose mean is the KL divergence from the policy that
            sampled to the trainer's, in nats; float64, shape (n,).
    """

    ages: np.ndarray
    tokens: np.ndarray
    ratios: np.ndarray
    squares: np.ndarray
    divergences: np.ndarray


def measure_divergence(rows: RowDivergence) -> dict[str, float]:
    """Effective sample size and KL divergence, of all tokens and by age.

    Returns:
        ``pipeline/correction/effective_share``: ``(sum r)^2 / (n sum r^2)``, which is 1 for equal
        ratios; ``pipeline/correction/kl/age_<age>`` in nats, and
        ``pipeline/correction/effective_share/age_<age>``. Empty without a token.
    """
    present = np.unique(rows.ages[rows.tokens > 0])
    if not present.size:
        return {}
    metrics = {EFFECTIVE: _compute_effective_share(rows, rows.tokens > 0)}
    for age in present.tolist():
        chosen = (rows.ages == age) & (rows.tokens > 0)
        tokens = rows.tokens[chosen].sum()
        metrics[f"{PREFIX}/kl/age_{age}"] = float(rows.divergences[chosen].sum() / tokens)
        metrics[f"{EFFECTIVE}/age_{age}"] = _compute_effective_share(rows, chosen)
    return metrics


def _compute_effective_share(rows: RowDivergence, chosen: np.ndarray) -> float:
    tokens, squares = rows.tokens[chosen].sum(), rows.squares[chosen].sum()
    # All ratios may be 0: the trainer's policy has given up every token that was sampled.
    return float(rows.ratios[chosen].sum() ** 2 / (tokens * squares)) if squares else 0.0
