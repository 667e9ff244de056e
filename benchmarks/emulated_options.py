"""What the options of :mod:`benchmarks.emulated_cluster` mean for a profile.

Invariant: what cannot run is refused in one line that names the option and the fix.
"""

from collections.abc import Sequence

from benchmarks.emulated_modes import MODES, EmulatedMode
from benchmarks.emulated_runs import Case, make_layout
from verl_pipeline.errors import UserError
from verl_pipeline.planner.plan import Planner
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.profile_error import ProfileError
from verl_pipeline.planner.schedules import Schedule
from verl_pipeline.planner.splits import Split, list_splits, read_split

# With auto: real seconds of the emulated part of a step of sync.
STEP_REAL_S = 6.0
# With auto: tokens of the longest response that verl handles.
MOST_TOKENS = 256
MOST_BATCH_TOKENS = 1_000_000
MOST_SLOWNESS = 1000.0


def choose_modes(names: str) -> list[EmulatedMode]:
    """The modes of ``--modes``.

    Raises:
        UserError: one is unknown.
    """
    chosen = []
    for name in names.split(","):
        if name.strip() not in MODES:
            raise UserError(f"--modes {name.strip()}: unknown; name some of {', '.join(MODES)}")
        chosen.append(MODES[name.strip()])
    return chosen


def choose_layout(
    profile: Profile, planner: Planner, mode: EmulatedMode, text: str, slots: int
) -> tuple[Split, int]:
    """Split and slots of a mode.

    Args:
        text: a split; ``auto``: the one with which the planner's `drained` at staleness 1 is
            fastest, for all modes; ``each``: the mode's own best, by the planner, with its slots.
        slots: of a replica; 0: the profile's, or what ``each`` finds.

    Raises:
        ProfileError: verl cannot place it, or none.
    """
    own = slots or profile.sampling.slots
    if text not in ("auto", "each"):
        return read_split(profile, text), own
    splits = list_splits(profile)
    if not splits:
        raise ProfileError(
            f"gpus={profile.gpus}: no split into two pools, with sampling.tensor_parallel="
            f"{profile.sampling.tensor_parallel} and training.fewest_gpus="
            f"{profile.training.fewest_gpus}; give more GPUs"
        )
    if text == "auto" or mode.schedule is None or mode.is_colocated:
        return planner.find_best_split(Schedule("drained", 1), splits), own
    plan = planner.find_best_plan(mode.schedule, splits)
    if not slots:
        plan = planner.refine(plan, longest_first=False)
    assert plan.split is not None
    return plan.split, slots or plan.layout.slots


def choose_scale(planner: Planner, text: str) -> float:
    """Emulated seconds in a real one.

    Raises:
        UserError: it is no number above 0.
    """
    if text == "auto":
        return planner.sync.step_s / STEP_REAL_S
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not 0 < scale <= 1e6:
        raise UserError(f"--time-scale {text}: must be a number above 0, at most 1e6, or auto")
    return scale


def choose_token_factor(profile: Profile, factor: int) -> int:
    """Emulated tokens behind one of verl's; 0: as few as keep a batch small."""
    if factor:
        return factor
    sampling = profile.sampling
    longest = sampling.response_tokens.largest / MOST_TOKENS
    batch = sampling.trajectories * sampling.response_tokens.expectation / MOST_BATCH_TOKENS
    return max(1, round(longest), round(batch))


def read_slow_replicas(texts: Sequence[str]) -> dict[int, float]:
    """The replicas of ``--slow-replica``, with how many times slower each decodes.

    Raises:
        UserError: one is not RANK:FACTOR, or named twice.
    """
    found: dict[int, float] = {}
    for text in texts:
        rank, _, factor = text.partition(":")
        try:
            number, slowness = int(rank), float(factor)
        except ValueError:
            number, slowness = -1, 0.0
        if number < 0 or not 1 <= slowness <= MOST_SLOWNESS:
            raise UserError(
                f"--slow-replica {text}: must be a replica's number and how many times slower it "
                f"decodes, 1 to {MOST_SLOWNESS:g}, as 1:2.5"
            )
        if number in found:
            raise UserError(f"--slow-replica {text}: replica {number} is named twice; keep one")
        found[number] = slowness
    return found


def check_slow_replicas(case: Case, profile: Profile) -> None:
    """Refuse a replica that a case does not have.

    Raises:
        UserError: it has fewer.
    """
    replicas = make_layout(case, profile).rollout_gpus // profile.sampling.tensor_parallel
    for number, factor in case.slow_replicas.items():
        if number >= replicas:
            raise UserError(
                f"--slow-replica {number}:{factor:g}: {case.mode.name} has replicas 0 to "
                f"{replicas - 1} on this profile; name one of them"
            )


def check_steps(mode: EmulatedMode, steps: int, warm_up: int) -> None:
    """Refuse a run of which no step would be measured.

    Raises:
        UserError: it is too short.
    """
    if warm_up + mode.cool_down >= steps:
        rest = f"; {mode.name} leaves out the last {mode.cool_down}, too" if mode.cool_down else ""
        raise UserError(
            f"--warm-up {warm_up}: must be below --steps {steps}{rest}; give more steps"
        )
