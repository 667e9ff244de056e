"""Whether the trainer and the replicas still give tokens the same log-probs. Imports no torch.

The gap of a replica is the mean of |log-prob of the trainer - log-prob of the replica| over some
tokens, both with the same version of the weights. Two engines never agree to the last bit, so the
gap is compared with what the run itself began with.

Invariants:
* A gap stops the run if it is above the absolute limit, or above :data:`FACTOR` times the smallest
  of the run's first :data:`FIRST` measurements and above the floor of the rollout's dtype.
* A gap that is not a number stops the run.
"""

import math
from collections.abc import Mapping, Sequence

from verl_pipeline.weight_sync.comparison import WeightsDiffer

FIRST = 3
# A healthy gap wanders with the entropy of the policy; by a factor of 2 to 3 in our runs.
FACTOR = 5.0
# By dtype of the rollout engine: the floor, below which nothing counts as drift, and the absolute
# limit. fp32 engines differ by 1e-7 on CPUs. bf16 alone moves the log-probs of SmolLM2-135M by 0.03
# on average; a model that is not the same, by 1 and more.
LIMITS = {"float32": (5e-4, 0.05), "float16": (0.02, 0.2), "bfloat16": (0.02, 0.2)}
QUANTIZED = (0.1, 0.5)


def choose_limits(dtype: str, is_quantized: bool, max_gap: float | None) -> tuple[float, float]:
    """The floor and the absolute limit of a run.

    Args:
        dtype: ``rollout.dtype``.
        max_gap: the user's limit, which stands for both; None: the dtype's.
    """
    if max_gap is not None:
        return max_gap, max_gap
    return QUANTIZED if is_quantized else LIMITS.get(dtype, LIMITS["bfloat16"])


class LogProbDrift:
    """The gaps of a run, from its start or its resume.

    Args:
        floor: nothing at or below it counts as drift.
        limit: no gap may be above it.
    """

    def __init__(self, floor: float, limit: float):
        self.floor = floor
        self.limit = limit
        self._first: list[float] = []

    def check_gaps(self, gaps: Mapping[str, float], version: int) -> float:
        """Check one measurement.

        Args:
            gaps: by replica, its gap.
            version: of the weights that both sides used.

        Returns:
            The largest gap.

        Raises:
            WeightsDiffer: naming the replica, the version, the gap and the limit it is above.
        """
        drift = max(FACTOR * min(self._first), self.floor) if self._first else self.limit
        allowed = min(drift, self.limit)
        # Not a number is above everything.
        replica, gap = max(
            gaps.items(), key=lambda item: math.inf if math.isnan(item[1]) else item[1]
        )
        if not gap <= allowed:
            raise WeightsDiffer(self._describe(replica, gap, version, gaps, allowed))
        if len(self._first) < FIRST:
            self._first.append(gap)
        return gap

    def _describe(
        self, replica: str, gap: float, version: int, gaps: Mapping[str, float], allowed: float
    ) -> str:
        others = [f"{name} {value:.3g}" for name, value in gaps.items() if name != replica]
        began = (
            f"{FACTOR:g} times the smallest of the first gaps ({_join(self._first)})"
            if self._first and allowed < self.limit
            else "the absolute limit"
        )
        return (
            f"{replica}, said to hold v_{version}, gives tokens of the batch log-probs that differ "
            f"from the trainer's by {gap:.3g} on average, above {allowed:.3g}, {began}"
            + (f"; the others: {', '.join(others)}" if others else "")
            + ". It does not sample with the weights that are trained"
        )


def _join(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def scale_log_prob(
    top: Sequence[tuple[int, float]], token: int, temperature: float
) -> tuple[float, float] | None:
    """Log-prob of a token at a temperature below 1, from the most likely tokens at temperature 1.

    Args:
        top: token and log-prob of the k most likely tokens, most likely first.

    Returns:
        The log-prob, too large by at most the second value; None if the token is not among them.
        The tokens left out share the mass m that ``top`` leaves, and none is likelier than its last
        token p_k: they add at most m * p_k^(1/T - 1) to the normaliser.
    """
    found = next((log_prob for other, log_prob in top if other == token), None)
    if found is None:
        return None
    exponent = 1 / temperature
    kept = math.fsum(math.exp(log_prob * exponent) for _token, log_prob in top)
    rest = max(0.0, 1 - math.fsum(math.exp(log_prob) for _token, log_prob in top))
    bound = rest * math.exp(top[-1][1] * (exponent - 1))
    return found * exponent - math.log(kept), math.log1p(bound / kept)
