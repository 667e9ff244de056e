"""One sentence of advice on a run: what its step hangs on, and what would make it shorter.

Invariants:
* Every number in the sentence is computed from the run's bills.
* A step is predicted on the assumptions that the advice states; parts that the split of the devices
  does not touch stay as they were measured.
"""

from dataclasses import dataclass

from verl_pipeline.errors import show_line
from verl_pipeline.number_formats import format_decimal, format_percent
from verl_pipeline.telemetry.accounting import (
    Bill,
    Parts,
    bill_steps,
    compute_ideal_step,
    find_bound,
    is_overlapped,
    list_steady_steps,
)
from verl_pipeline.telemetry.device_splits import (
    Split,
    choose_split,
    is_worthwhile,
)
from verl_pipeline.telemetry.device_splits import (
    show_seconds as _show,
)
from verl_pipeline.telemetry.flow_advice import FLOW_ASSUMPTIONS, advise_on_flow
from verl_pipeline.telemetry.flow_limits import measure_limits
from verl_pipeline.telemetry.records import Header, Pool
from verl_pipeline.telemetry.run_folder import Run
from verl_pipeline.telemetry.tails import find_slow_replicas

# Of the step: parts that are this long are named beside the bound.
NOTABLE = 0.2
ASSUMPTIONS = (
    "training takes a time inversely proportional to the trainer's devices",
    "generation does so with the rollout pool's devices, up to the tail, which stays as long",
    "rewards, weight syncs, checkpoints, validations and what is not recorded stay as long",
)


@dataclass(frozen=True)
class Advice:
    """What the bills say.

    Attributes:
        bound: see :func:`.accounting.find_bound` and, past the barrier,
            :attr:`.flow_limits.FlowLimits.bound`; None without a complete step.
        figures: what the sentence was made of: ``step_s``, ``train_s``, ``generate_s``, ``tail_s``,
            ``reward_s``, ``serial_s`` (means of the steady steps), and, where a change helps,
            ``predicted_step_s``, ``trainer_devices`` and ``rollout_devices``; past the barrier
            ``longest_s`` too, and ``staleness`` where that is what helps.
        assumptions: of the prediction; empty if there is none.
    """

    sentence: str
    bound: str | None
    figures: dict[str, float]
    assumptions: tuple[str, ...] = ()


def advise(run: Run) -> Advice:
    """Return the advice for a run; see the module's docstring."""
    parts = list_steady_steps(run)
    if not parts:
        return Advice("no step is complete yet, so nothing can be advised", None, {})
    names = ("step_s", "train_s", "generate_s", "tail_s", "reward_s", "serial_s")
    figures = {name: sum(getattr(part, name) for part in parts) / len(parts) for name in names}
    shares = _measure_shares(run, parts)
    limits = None
    if run.header.flows:
        limits = measure_limits(run, parts)
        figures["longest_s"] = limits.longest_s
    bound = limits.bound if limits else find_bound(parts, is_overlapped(run))
    assumptions: tuple[str, ...] = ()
    split: Split | None = None
    if shares["slow replica"] > NOTABLE / 2:
        sentence = _advise_on_slow_replica(run, figures, shares["slow replica"])
    elif bound == "reward":
        sentence = _advise_on_reward(figures)
    elif limits:
        sentence, change = advise_on_flow(run.header, limits, figures["step_s"], shares)
        figures |= change
        assumptions = FLOW_ASSUMPTIONS if change else ()
    elif is_overlapped(run):
        sentence, split = _advise_on_split(run.header, parts, figures, bound, shares)
    else:
        sentence, split = _advise_on_overlap(run.header, parts, figures)
    if split:
        figures |= {
            "predicted_step_s": split.step_s,
            "trainer_devices": split.trainer,
            "rollout_devices": split.rollout,
        }
        assumptions = ASSUMPTIONS
    sentence += _name_other_parts(figures, run.header)
    return Advice(sentence, bound, figures, assumptions)


def predict_step(part: Parts, trainer_scale: float, rollout_scale: float) -> float:
    """Return the seconds that a step takes, overlapped, if each pool's devices are changed.

    ``compute_ideal_step`` of the changed parts, plus what the step took beyond its own ideal.

    Args:
        trainer_scale, rollout_scale: how many times as many devices the pool gets.
    """
    train = part.train_s / trainer_scale
    ahead = (part.generate_s - part.tail_s) / rollout_scale + part.tail_s + part.reward_s
    beyond = part.step_s - max(part.busy_s, compute_ideal_step(part, True))
    return beyond + part.serial_s + max(train, ahead)


def find_best_split(parts: list[Parts], header: Header) -> Split | None:
    """Return the split of the run's devices with the shortest predicted step, or None if there is
    one device only; see :func:`.device_splits.list_splits`."""
    return choose_split(
        header,
        lambda trainer, rollout: (
            sum(predict_step(part, trainer, rollout) for part in parts) / len(parts)
        ),
    )


def _advise_on_reward(figures: dict[str, float]) -> str:
    wait, step = figures["reward_s"], figures["step_s"]
    return (
        f"reward-bound: the trainer waits for rewards {format_percent(wait / step, 0)} of the time,"
        f" {_show(wait)} a step, after generation has ended: no other split of devices helps; make "
        "the reward function faster or give it more workers, and the step would be down to "
        f"{_show(max(step - wait, 0.0))}"
    )


def _advise_on_split(
    header: Header,
    parts: list[Parts],
    figures: dict[str, float],
    bound: str,
    shares: dict[str, float],
) -> tuple[str, Split | None]:
    ahead = figures["generate_s"] + figures["reward_s"]
    times = (
        f"training takes {_show(figures['train_s'])} a step, generation with rewards {_show(ahead)}"
    )
    today = f"{header.trainer_devices} + {header.rollout_devices}"
    if bound == "balanced":
        return f"balanced, nothing to gain by moving devices: {times}", None
    if bound == "training":
        start = (
            "training-bound: rollout waits for the trainer "
            f"{format_percent(shares['wait_trainer'], 0)} of the time"
        )
        move = "move devices from rollout to training"
    else:
        start = (
            "rollout-bound: the trainer waits for rollout "
            f"{format_percent(shares['wait_rollout'], 0)} of the time"
        )
        move = "move devices from training to rollout"
    best = find_best_split(parts, header)
    current = sum(predict_step(part, 1.0, 1.0) for part in parts) / len(parts)
    if not is_worthwhile(best, current):
        if bound == "rollout" and figures["tail_s"] > figures["generate_s"] / 2:
            reason = (
                f"the tail of generation takes {_show(figures['tail_s'])} of it, which more devices"
                " do not shorten"
            )
        else:
            reason = f"more devices for {'training' if bound == 'training' else 'rollout'} would"
        return f"{start} ({times}): no split of the devices beats {today}; {reason}", None
    return (
        f"{start} ({times}): {move}; with {best.trainer} + {best.rollout} devices for training and "
        f"rollout instead of {today} the step would be about {_show(best.step_s)} instead of "
        f"{_show(figures['step_s'])}",
        best,
    )


def _advise_on_overlap(
    header: Header, parts: list[Parts], figures: dict[str, float]
) -> tuple[str, Split | None]:
    times = (
        f"training takes {_show(figures['train_s'])} a step and generation "
        f"{_show(figures['generate_s'])}, one after the other"
    )
    if header.shares_devices:
        best = find_best_split(parts, header)
        change = "pools of their own (trainer_mode=one_off_pipeline)"
    else:
        step = sum(predict_step(part, 1.0, 1.0) for part in parts) / len(parts)
        best = Split(header.trainer_devices, header.rollout_devices, step)
        change = "staleness 1"
    if not is_worthwhile(best, figures["step_s"]):
        return f"{times}: {change} would gain nothing", None
    return (
        f"{times}: with {change} they overlap, and with {best.trainer} + {best.rollout} devices for"
        f" training and rollout the step would be about {_show(best.step_s)} instead of "
        f"{_show(figures['step_s'])}",
        best,
    )


def _advise_on_slow_replica(run: Run, figures: dict[str, float], share: float) -> str:
    step, wait = figures["step_s"], figures["step_s"] * share
    slow = [
        f"{show_line(name)} ({format_decimal(times)} times the others' time per token)"
        for name, times in find_slow_replicas(run).items()
    ]
    return (
        f"rollout-bound by {', '.join(slow) or 'a replica that is slow now and then'}: the trainer "
        f"waits for it alone {format_percent(share, 0)} of the time, {_show(wait)} a step: see to "
        f"its device first; the step would be down to {_show(max(step - wait, 0.0))}"
    )


def _name_other_parts(figures: dict[str, float], header: Header) -> str:
    """Return what else is long, as the end of the sentence."""
    if figures["serial_s"] <= NOTABLE * figures["step_s"]:
        return ""
    serial = _show(figures["serial_s"])
    syncs = "" if header.flows else "weight syncs, "
    return f"; {syncs}checkpoints and validations take {serial} a step"


def _measure_shares(run: Run, parts: list[Parts]) -> dict[str, float]:
    """Return shares of the steady steps: the trainer waits for what is being generated, and of that
    for a slow replica; the rollout pool waits for training."""
    steps = {part.step for part in parts}
    total = sum(part.step_s for part in parts) or 1.0
    bills = [bill for bill in bill_steps(run) if bill.step in steps]
    trainer = [bill for bill in bills if bill.pool == Pool.TRAINER]
    rollout = [bill for bill in bills if bill.pool == Pool.ROLLOUT]

    def share(bills: list[Bill], *causes: str) -> float:
        return sum(bill.causes.get(cause, 0.0) for bill in bills for cause in causes) / total

    return {
        "wait_rollout": share(trainer, "generation", "tail of generation", "slow replica"),
        # After the last batch of a run there is nothing to wait for; before, it would wait.
        "wait_trainer": share(rollout, "training", "end of the run"),
        "slow replica": share(trainer, "slow replica"),
        "draining": share(rollout, "drain before a load"),
    }
