"""Advice on a run past the barrier: what its step hangs on, and which change makes it shorter.

Invariant: a step is predicted from the limits of :mod:`.flow_limits` with the change, plus what the
run's step took beyond its own limits.
"""

from dataclasses import replace

from verl_pipeline.number_formats import format_decimal, format_percent
from verl_pipeline.telemetry.device_splits import (
    WORTHWHILE,
    choose_split,
    is_worthwhile,
    show_seconds,
)
from verl_pipeline.telemetry.flow_limits import FlowLimits
from verl_pipeline.telemetry.records import Header
from verl_pipeline.trainer.schedule import IN_FLIGHT, ROLLING, STALENESS

FLOW_ASSUMPTIONS = (
    "training takes a time inversely proportional to the trainer's devices, publication stays as "
    "long",
    "generation of all but the longest trajectory does so with the rollout pool's devices",
    "the longest trajectory, and what a step took beyond its limits, stay as long",
)
# Of the replicas' time: drains that take more are worth a word.
NOTABLE_DRAIN = 0.1


def advise_on_flow(
    header: Header, limits: FlowLimits, step_s: float, shares: dict[str, float]
) -> tuple[str, dict[str, float]]:
    """Return the sentence, and the figures of the change that it advises.

    Args:
        step_s: of the run, mean.
        shares: of the run's time, by what was waited for: ``wait_rollout``, ``wait_trainer``,
            ``draining``.
    """
    beyond = max(step_s - limits.step_s, 0.0)
    times = (
        f"training takes {show_seconds(limits.train_s)} a step, generation "
        f"{show_seconds(limits.work_s)}; the longest trajectory and its update take "
        f"{show_seconds(limits.longest_s + limits.update_s)}, which "
        f"{_show_count(limits.staleness + 1)} steps share"
    )
    if limits.bound == "longest":
        sentence, change = _advise_on_staleness(header, limits, beyond, step_s, shares, times)
    elif limits.bound == "balanced":
        sentence, change = f"balanced, nothing to gain by moving devices: {times}", {}
    else:
        sentence, change = _advise_on_split(header, limits, beyond, step_s, shares, times)
    if header.weight_sync_mode == ROLLING and shares["draining"] > NOTABLE_DRAIN:
        sentence += (
            f"; replicas run empty before they load {format_percent(shares['draining'], 0)} of the "
            f"time, which weight_sync_mode={IN_FLIGHT} does without"
        )
    return sentence, change


def _show_count(number: float) -> str:
    return format_decimal(number, 1).removesuffix(".0")


def scale_limits(limits: FlowLimits, trainer: float, rollout: float) -> FlowLimits:
    """The limits with so many times the devices of each pool."""
    return replace(limits, update_s=limits.update_s / trainer, work_s=limits.work_s / rollout)


def _advise_on_staleness(
    header: Header,
    limits: FlowLimits,
    beyond: float,
    step_s: float,
    shares: dict[str, float],
    times: str,
) -> tuple[str, dict[str, float]]:
    most = STALENESS[header.weight_sync_mode or ROLLING][1]
    start = (
        "bound by the longest trajectories: the trainer waits for rollout "
        f"{format_percent(shares['wait_rollout'], 0)} of the time, rollout for the trainer "
        f"{format_percent(shares['wait_trainer'], 0)} ({times})"
    )
    if header.auto_staleness and limits.staleness < (header.staleness or 0) - 0.5:
        chosen = _show_count(limits.staleness)
        return f"{start}: staleness=auto keeps it at {chosen} of at most {header.staleness}", {}
    steps = {
        staleness: beyond + replace(limits, staleness=staleness).step_s
        for staleness in range(header.staleness or 0, most + 1)
    }
    # The smallest one that is nearly as good as the best: older data have their price.
    best = next(s for s in steps if steps[s] <= (1 + WORTHWHILE) * steps[most])
    if steps[best] > (1 - WORTHWHILE) * step_s:
        return f"{start}: more staleness or other devices would gain little", {}
    field = "auto_staleness.most" if header.auto_staleness else "staleness"
    return (
        f"{start}: raise {field} from {header.staleness} to {best}, and the step would be "
        f"about {show_seconds(steps[best])} instead of {show_seconds(step_s)}",
        {"staleness": best, "predicted_step_s": steps[best]},
    )


def _advise_on_split(
    header: Header,
    limits: FlowLimits,
    beyond: float,
    step_s: float,
    shares: dict[str, float],
    times: str,
) -> tuple[str, dict[str, float]]:
    training = limits.bound == "training"
    waits, awaited = ("rollout", "the trainer") if training else ("the trainer", "rollout")
    share = shares["wait_trainer" if training else "wait_rollout"]
    start = (
        f"{limits.bound}-bound: {waits} waits for {awaited} {format_percent(share, 0)} of the time "
        f"({times})"
    )
    today = f"{header.trainer_devices} + {header.rollout_devices}"
    best = choose_split(
        header, lambda trainer, rollout: beyond + scale_limits(limits, trainer, rollout).step_s
    )
    if not is_worthwhile(best, step_s):
        more = "training" if training else "rollout"
        return f"{start}: no split of the devices beats {today}; more devices for {more} would", {}
    move = "from rollout to training" if training else "from training to rollout"
    return (
        f"{start}: move devices {move}; with {best.trainer} + {best.rollout} devices for training "
        f"and rollout instead of {today} the step would be about {show_seconds(best.step_s)} "
        f"instead of {show_seconds(step_s)}",
        {
            "predicted_step_s": best.step_s,
            "trainer_devices": best.trainer,
            "rollout_devices": best.rollout,
        },
    )
