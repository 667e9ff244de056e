"""Confidence of a sample in windows of its tokens, as DeepConf measures it (Fu et al. 2025, arXiv
2508.15260).

A token's confidence is the negative mean of the log-probs of the k likeliest tokens at its place
(``engine.top_logprobs=k``): large where the model prefers one token to all others. With k = 0 it is
the log-prob of the sampled token. A window's confidence is the mean over its tokens. A mean over
the whole sample hides the few tokens at which it went wrong; the lowest window shows them.

Invariant: more is more confident, for every measure here and for every k.
"""

import itertools
import math
from collections.abc import Callable, Sequence

# Decimals of a recorded confidence: a response of 32,768 tokens takes a quarter of a megabyte.
DIGITS = 3
# vLLM's log-prob of a token that has none may be -inf, which JSON does not know.
LOWEST_LOGPROB = -100.0

# Confidence of a sample: a function of its tokens' confidences and the length of a window.
Measure = Callable[[Sequence[float], int], float]


def measure_token(
    sampled: float, ranked: Sequence[tuple[int | None, float]], top_logprobs: int
) -> float:
    """Return the confidence of one token.

    Args:
        sampled: log-prob of the sampled token.
        ranked: ranks, from 1, and log-probs of the likeliest tokens; the sampled one may be among
            them with a larger rank, and then does not count.
        top_logprobs: as ``engine.top_logprobs``.
    """
    if top_logprobs == 0:
        return round(max(sampled, LOWEST_LOGPROB), DIGITS)
    tops = [value for rank, value in ranked if rank is not None and rank <= top_logprobs]
    return round(-sum(max(value, LOWEST_LOGPROB) for value in tops) / len(tops), DIGITS)


def measure_windows(tokens: Sequence[float], window: int) -> list[float]:
    """Return the mean of each full window of ``tokens``, by its last token.

    A sample shorter than a window is one window.

    Args:
        tokens: confidences, at least one.
        window: tokens of a window, at least 1.
    """
    width = min(window, len(tokens))
    sums = [0.0, *itertools.accumulate(tokens)]
    return [(end - start) / width for start, end in zip(sums, sums[width:], strict=False)]


def measure_lowest(tokens: Sequence[float], window: int) -> float:
    """Return the confidence of the least confident window (DeepConf's lowest group confidence)."""
    return min(measure_windows(tokens, window))


def measure_tail(tokens: Sequence[float], window: int) -> float:
    """Return the confidence of the last window (DeepConf's tail confidence)."""
    return measure_windows(tokens[-window:], window)[0]


MEASURES: dict[str, Measure] = {"lowest group": measure_lowest, "tail": measure_tail}


def find_stop(tokens: Sequence[float], window: int, threshold: float) -> int | None:
    """Return how many tokens exist when a window falls below ``threshold``; None if none does.

    Only full windows count: an engine that stops a sample in the middle knows no others.
    """
    if len(tokens) < window:
        return None
    lows = measure_windows(tokens, window)
    return next((window + i for i, value in enumerate(lows) if value < threshold), None)


def to_weight(confidence: float, top_logprobs: int) -> float:
    """Return the weight in a vote of a sample with this confidence.

    A mean log-prob weighs by its exponential, the geometric mean of the probabilities, as
    everywhere in this package; DeepConf's confidence weighs as it is.
    """
    return math.exp(confidence) if top_logprobs == 0 else confidence
