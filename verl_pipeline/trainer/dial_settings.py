"""The settings that become the schedule's dial, and the refusal of those that make none.

Invariant: a refusal names the field, its value and what to set instead, in one line.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from verl_pipeline.trainer.schedule import DRAINED, ROLLING, STALENESS, Dial

AUTO = "auto"
KV_CHOICES = ("keep", "recompute")


@dataclass
class AutoStalenessSettings:
    """What ``staleness=auto`` keeps to."""

    # The largest staleness that it takes: 1 to 8.
    most: int = 8
    # The share of a step that the trainer may wait for its batch.
    wait_share: float = 0.05


def find_staleness(mode: str, staleness: int | str, auto: AutoStalenessSettings) -> tuple[int, int]:
    """The staleness to begin with, and the largest that the run may have."""
    if staleness == AUTO:
        return STALENESS[mode][0], auto.most
    return int(staleness), int(staleness)


def make_dial(mode: str, staleness: int | str, auto: AutoStalenessSettings) -> Dial:
    """What the schedule begins with."""
    return Dial(mode, find_staleness(mode, staleness, auto)[0])


def find_wrong_dial(
    mode: str, staleness: int | str, auto: AutoStalenessSettings, key: str
) -> Iterator[str]:
    """One line for each value that cannot be.

    Args:
        key: the section of these settings.
    """
    if mode not in STALENESS:
        yield f"{key}.weight_sync_mode={mode}: must be one of {', '.join(STALENESS)}"
        return
    least, most = STALENESS[mode]
    if staleness == AUTO:
        yield from _find_wrong_auto(mode, auto, key)
    elif not isinstance(staleness, int):
        yield f"{key}.staleness={staleness}: must be a whole number, or {AUTO}"
    elif staleness > most and mode == DRAINED:
        yield (
            f"{key}.staleness={staleness}: must be 0 or 1 with weight_sync_mode={DRAINED}: the "
            "pool drains at every weight sync, so running further ahead would only make data "
            f"older; weight_sync_mode={ROLLING} goes up to {STALENESS[ROLLING][1]}"
        )
    elif not least <= staleness <= most:
        advice = (
            f"; for on-policy training take weight_sync_mode={DRAINED}" if not staleness else ""
        )
        yield (
            f"{key}.staleness={staleness}: must be {least} to {most} with weight_sync_mode={mode}"
            f"{advice}"
        )


def _find_wrong_auto(mode: str, auto: AutoStalenessSettings, key: str) -> Iterator[str]:
    least, most = STALENESS[mode]
    if mode == DRAINED:
        yield (
            f"{key}.staleness={AUTO}: needs weight_sync_mode={ROLLING} or in_flight; with "
            f"{DRAINED} set 0 or 1"
        )
        return
    if not least <= auto.most <= most:
        yield f"{key}.auto_staleness.most={auto.most}: must be {least} to {most}"
    if not 0.0 <= auto.wait_share < 1.0:
        yield f"{key}.auto_staleness.wait_share={auto.wait_share}: must be at least 0 and below 1"
