"""How training speeds up with devices, from runs that trained on different numbers of them.

Seconds a token of an update = c x devices to the power of minus the exponent: a line in logarithms,
through two runs, by least squares through more.

Invariant: the exponent is between 0 and 1, as the planner has it; one that was measured outside is
said, with the runs that it comes from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from verl_pipeline.number_formats import format_decimal
from verl_pipeline.planner.answer import show_seconds
from verl_pipeline.planner.profile_error import ProfileError
from verl_pipeline.planning.recorded_steps import RecordedSteps

# An exponent is as near to a bound as this by rounding alone.
ROUNDING = 0.005


@dataclass(frozen=True)
class Pace:
    """How fast the trainer of a run was.

    Attributes:
        update_s: mean seconds of an update, without log-probs.
        tokens: of a batch, prompts included: mean length x trajectories.
    """

    folder: Path
    devices: int
    update_s: float
    tokens: float


@dataclass(frozen=True)
class Scaling:
    """An exponent and where it comes from.

    Attributes:
        measured: as fitted.
        paces: of the runs it was fitted to; the first is the one to plan for.
        problems: what was wrong with the records of the others.
    """

    measured: float
    paces: tuple[Pace, ...]
    problems: tuple[str, ...] = ()

    @property
    def exponent(self) -> float:
        """What the planner gets."""
        return min(max(self.measured, 0.0), 1.0)

    def describe(self) -> list[str]:
        """Return plain sentences, to be shown with every answer."""
        first, *others = self.paces
        counts = sorted(pace.devices for pace in self.paces)
        shown = ", ".join(f"{_show_pace(pace)} in {pace.folder}" for pace in others)
        notes = [
            "Training is taken to speed up with its GPUs to the power "
            f"{format_decimal(self.exponent, 2)}: an update took {_show_pace(first)} in this run, "
            f"{shown}. Outside of {counts[0]} to {counts[-1]} devices that is a guess."
        ]
        if abs(self.measured - self.exponent) > ROUNDING:
            limit = "more than in proportion" if self.measured > 1 else "by less than nothing"
            notes.append(
                f"The runs say that training speeds up {limit} (power "
                f"{format_decimal(self.measured, 2)}), which the planner does not believe: "
                "something else differs between them, or they are too short."
            )
        return [*notes, *self.problems]


def fit_scaling(run: RecordedSteps, others: Sequence[RecordedSteps]) -> Scaling:
    """Fit the exponent to the updates of runs of the same model.

    Args:
        run: the run to plan for.
        others: at least one.

    Raises:
        ProfileError: one of the others trains on as many devices as the run, or one has no update.
    """
    paces = [measure_pace(recorded) for recorded in (run, *others)]
    for pace in paces[1:]:
        if pace.devices == paces[0].devices:
            raise ProfileError(
                f"--scaling-run {pace.folder}: trains on {pace.devices} devices, as "
                f"{paces[0].folder} does; give a run that trains on another number of them"
            )
    problems = tuple(
        f"The records of {other.run.folder}: {problem}."
        for other in others
        for problem in other.run.problems
    )
    return Scaling(fit_exponent(paces), tuple(paces), problems)


def fit_exponent(paces: Sequence[Pace]) -> float:
    """The exponent of the trainer's speed in its devices; of at least two numbers of them."""
    devices = np.log([pace.devices for pace in paces])
    seconds = np.log([pace.update_s / pace.tokens for pace in paces])
    return -float(np.polyfit(devices, seconds, 1)[0])


def measure_pace(recorded: RecordedSteps) -> Pace:
    """Measure the trainer of a run.

    Raises:
        ProfileError: it has no update that took time.
    """
    header, lengths, folder = recorded.header, recorded.lengths, recorded.run.folder
    update_s = float(np.mean(recorded.measure_update()))
    if update_s <= 0:
        raise ProfileError(f"{folder}: its steps have no update; give a run that trained")
    tokens = float(lengths.responses.mean() + lengths.prompts.mean())
    trajectories = header.batch_size * header.group_size
    return Pace(folder, header.trainer_devices, update_s, tokens * trajectories)


def _show_pace(pace: Pace) -> str:
    devices = f"{pace.devices} device{'' if pace.devices == 1 else 's'}"
    tokens = format_decimal(pace.tokens, 0, group=True)
    return f"{show_seconds(pace.update_s)} for {tokens} tokens on {devices}"
