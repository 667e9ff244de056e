"""What a step is made of, and sums over moments: what bills, limits and advice have in common."""

from dataclasses import dataclass

import numpy as np

# Pools whose work differs by less are balanced.
BALANCED = 0.1


@dataclass(frozen=True)
class Parts:
    """What a step is made of, in seconds; see :func:`.accounting.measure_parts`.

    Attributes:
        step_s: from its start to the start of the next.
        train_s: the trainer's own work.
        generate_s: the rollout pool generated, its tail included.
        tail_s: of that, the tail.
        reward_s: the trainer waited for rewards of a batch that was generated.
        serial_s: weight syncs, switches, checkpoints and validations, in which the pool did not
            generate; past the barrier checkpoints and validations, whatever the pool did.
        busy_s: at least one of the first three went on, or a serial part.
        publish_s: past the barrier, the trainer published weights.

    Past the barrier ``generate_s`` and ``tail_s`` are means of the replicas, and a replica that
    runs empty before it loads counts as tail.
    """

    step: int
    step_s: float
    train_s: float
    generate_s: float
    tail_s: float
    reward_s: float
    serial_s: float
    busy_s: float
    publish_s: float = 0.0


def sum_codes(
    steps: np.ndarray, codes: np.ndarray, weights: np.ndarray, count: int, size: int
) -> np.ndarray:
    """Return the weights of each code in each step, [count, size], int64 if they are.

    Args:
        steps, codes: int64 [parts]; -1 is left out.
        weights: [parts].
    """
    cells = (steps + 1) * (size + 1) + codes + 1
    sums = np.bincount(cells, weights, (count + 1) * (size + 1))
    if weights.dtype.kind == "i":  # exact: less than 2**53
        sums = np.rint(sums).astype(np.int64)
    return sums.reshape(count + 1, size + 1)[1:, 1:]


def divide_whole(sums: np.ndarray, count: int, totals: np.ndarray) -> np.ndarray:
    """Return ``sums / count`` in whole numbers that sum to ``totals`` [steps] in each step: what is
    left by rounding down goes to those that lost most by it."""
    whole, rest = np.divmod(sums, count)
    left = totals - whole.sum(axis=1)
    ranks = np.argsort(np.argsort(-rest, axis=1, kind="stable"), axis=1)
    return whole + (ranks < left[:, None])
