"""The answer in words: a plain sentence and the overrides to paste.

Invariant: of plans that gain the same within :data:`ALIKE`, the simplest is recommended, and of
those the one with the youngest data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from verl_pipeline.number_formats import format_decimal, format_interval, format_percent
from verl_pipeline.planner.plan import Plan
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.schedules import DRAINED, OURS

# A smaller gain than this is not worth a second pool.
SMALLEST_GAIN = 0.05
# Gains that differ by less, as a share, are alike.
ALIKE = 0.01
USE, STAY, SLOWER = "use", "stay", "slower"


@dataclass(frozen=True)
class Answer:
    """What to do.

    Attributes:
        verdict: ``use``, ``stay`` (the gain is under 5 %) or ``slower``.
        sentence: the verdict with its figures and its cause.
        overrides: settings to paste; none to change if ``sync`` stays.
        plan: the one that is recommended, or would be, if there is a split at all.
    """

    verdict: str
    sentence: str
    overrides: tuple[str, ...]
    plan: Plan | None


def make_answer(profile: Profile, sync: Plan, plans: Sequence[Plan]) -> Answer:
    """Choose among the plans of our modes.

    Args:
        sync: the baseline, on the same GPUs.
        plans: of any schedules.
    """
    best = choose_plan(plans)
    overrides: tuple[str, ...] = ("trainer.v1.trainer_mode=sync",)
    if best is None:
        return Answer(
            STAY,
            f"Stay with sync: no split of {show_gpus(profile.gpus)} that verl can place leaves a "
            f"rollout pool of {show_gpus(profile.sampling.tensor_parallel)} and a trainer of "
            f"{show_gpus(profile.training.fewest_gpus)} or more; --gpus plans for more.",
            overrides,
            None,
        )
    gain = format_interval(best.gain, min(best.gains), max(best.gains), 2)
    steps = (
        f"{show_seconds(best.step_s)} a step against {show_seconds(sync.step_s)} "
        f"(gain {gain} over seeds)"
    )
    where = f"{show_mode(best)} with {show_layout(best)}"
    if best.gain >= 1 + SMALLEST_GAIN:
        verdict = USE
        sentence = f"Use one_off_pipeline, {where}: {steps}."
        if best.schedule.staleness > 1:
            sentence += (
                f" Samples are then up to {best.schedule.staleness} updates old; what that costs "
                "in learning is not predicted."
            )
        overrides = list_overrides(profile, best)
    elif best.gain >= 1:
        verdict = STAY
        sentence = (
            f"Stay with sync: the best plan, {where}, takes {steps}, under "
            f"{format_percent(SMALLEST_GAIN, 0)}. {explain_limit(sync, best)}"
        )
    else:
        verdict = SLOWER
        sentence = (
            f"Stay with sync: pipelining is slower. The best plan, {where}, takes {steps}. "
            f"{explain_limit(sync, best)}"
        )
    return Answer(verdict, sentence, overrides, best)


def choose_plan(plans: Sequence[Plan]) -> Plan | None:
    """The simplest of our plans that gain the most; None if there is none."""
    ours = [plan for plan in plans if plan.schedule.kind in OURS]
    if not ours:
        return None
    enough = (1 - ALIKE) * max(plan.gain for plan in ours)
    return min(
        (plan for plan in ours if plan.gain >= enough),
        key=lambda plan: (OURS.index(plan.schedule.kind), plan.schedule.staleness, -plan.gain),
    )


def explain_limit(sync: Plan, plan: Plan) -> str:
    """Say what holds a plan up, from where the GPU time went and what its limit is."""
    assert plan.limit is not None
    limit, layout = plan.limit, plan.layout
    share = format_percent(sync.shares["update"], 0)
    if limit.cause == "update":
        return (
            f"Training is {share} of a step of sync; on {show_gpus(layout.trainer_gpus)} instead "
            f"of all it takes {show_seconds(limit.update)} alone, so hiding the sampling gains "
            "little."
        )
    if limit.cause == "work":
        return (
            f"Sampling has too much work for {show_gpus(layout.rollout_gpus)} "
            f"({show_seconds(limit.work)} at full rate), and it keeps all GPUs busy in sync: "
            "there is nothing to hide."
        )
    if limit.cause == "reward":
        return (
            f"Rewards keep all their workers busy for {show_seconds(limit.reward)} a step, "
            "whatever the GPUs do."
        )
    tail = format_percent(plan.shares["tail"] + plan.shares["rollout_idle"], 0)
    return (
        f"The longest trajectory holds up a step, and {tail} of all GPU time goes into a rollout "
        "pool that is mostly empty: the tail lasts as long on any split."
    )


def list_overrides(profile: Profile, plan: Plan) -> tuple[str, ...]:
    """Settings of verl's entry point that make the plan."""
    split = plan.split
    assert split is not None
    rollout = "actor_rollout_ref.rollout"
    mode, staleness = plan.schedule.kind, plan.schedule.staleness
    return (
        "trainer.v1.trainer_mode=one_off_pipeline",
        f"trainer.nnodes={split.trainer_nodes}",
        f"trainer.n_gpus_per_node={split.trainer_per_node}",
        f"{rollout}.nnodes={split.rollout_nodes}",
        f"{rollout}.n_gpus_per_node={split.rollout_per_node}",
        f"{rollout}.tensor_model_parallel_size={profile.sampling.tensor_parallel}",
        f"{rollout}.max_num_seqs={plan.layout.slots}",
        *([] if mode == DRAINED else [f"+trainer.v1.one_off_pipeline.weight_sync_mode={mode}"]),
        *([] if staleness == 1 else [f"+trainer.v1.one_off_pipeline.staleness={staleness}"]),
    )


def compute_cost(profile: Profile, plan: Plan, price: float | None) -> dict[str, float]:
    """GPU-hours of 100 steps, and their money if a GPU-hour has a price."""
    hours = profile.gpus * plan.step_s * 100 / 3600
    return {"gpu_hours": hours} if price is None else {"gpu_hours": hours, "money": hours * price}


def show_gpus(count: int) -> str:
    """Return a number of GPUs in words."""
    return f"{count} GPU" if count == 1 else f"{count} GPUs"


def show_mode(plan: Plan) -> str:
    """Return how a plan takes weights, and how far it runs ahead."""
    return f"{plan.schedule.kind} at staleness {plan.schedule.staleness}"


def show_layout(plan: Plan) -> str:
    """Return who has which GPUs."""
    layout = plan.layout
    rollout = show_gpus(layout.rollout_gpus)
    return f"{rollout} for rollout and {layout.trainer_gpus} for the trainer"


def show_seconds(seconds: float) -> str:
    """Return seconds with three digits or so."""
    return f"{format_decimal(seconds, 0 if seconds >= 100 else 1 if seconds >= 10 else 2)} s"
