"""Splits of a run's devices between its pools, and the best of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

from verl_pipeline.number_formats import format_decimal
from verl_pipeline.telemetry.records import Header

# A shorter gain than this share of the step is not worth a change.
WORTHWHILE = 0.05
# More than any cluster has, and few enough to try all splits of.
_MOST_DEVICES = 1 << 14


@dataclass(frozen=True)
class Split:
    """Devices of the two pools, and the step that is predicted for them, in seconds."""

    trainer: int
    rollout: int
    step_s: float


def choose_split(header: Header, predict: Callable[[float, float], float]) -> Split | None:
    """Return the split of the run's devices with the shortest predicted step, or None if there is
    one device only. Replicas keep their size; of equal splits the nearest to today's is taken.

    Args:
        predict: seconds of a step with so many times the trainer's and the rollout pool's devices.
    """
    devices = header.trainer_devices
    devices += 0 if header.shares_devices else header.rollout_devices
    size = max(header.rollout_devices // max(header.replicas, 1), 1)
    splits = [
        Split(
            devices - rollout,
            rollout,
            predict((devices - rollout) / header.trainer_devices, rollout / header.rollout_devices),
        )
        for rollout in range(size, min(devices, _MOST_DEVICES), size)
    ]
    return min(
        splits,
        key=lambda split: (round(split.step_s, 6), abs(split.rollout - header.rollout_devices)),
        default=None,
    )


def is_worthwhile(best: Split | None, current_s: float) -> TypeGuard[Split]:
    """Whether a split makes a step shorter by more than :data:`WORTHWHILE`."""
    return best is not None and best.step_s <= (1 - WORTHWHILE) * current_s


def show_seconds(seconds: float) -> str:
    """As ``4.2 s`` or ``210 s``."""
    return f"{format_decimal(seconds, 1 if seconds < 100 else 0)} s"
