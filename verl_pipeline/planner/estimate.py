"""A profile that nobody wrote by hand, with what had to be assumed to make it."""

from dataclasses import dataclass

from verl_pipeline.number_formats import format_percent
from verl_pipeline.planner.answer import show_seconds
from verl_pipeline.planner.profile import Profile


@dataclass(frozen=True)
class Reproduction:
    """A run's own step, measured, beside the one that is simulated for it.

    Attributes:
        mode: of the run.
        steps: that ``measured_s`` is the mean of.
        measured_s: seconds of a step.
        simulated_s: of the same schedule on the same pools; None if the planner does not know it.
    """

    mode: str
    steps: int
    measured_s: float
    simulated_s: float | None

    def describe(self) -> str:
        """Return a sentence."""
        head = (
            f"The run ({self.mode}) took {show_seconds(self.measured_s)} a step, the mean of "
            f"{self.steps} steps"
        )
        if self.simulated_s is None:
            return f"{head}; no schedule of the planner is like its own, so its fit is not known."
        error = self.simulated_s / self.measured_s - 1
        sign = "+" if error > 0 else ""
        return (
            f"{head}; simulated, its schedule takes {show_seconds(self.simulated_s)} "
            f"({sign}{format_percent(error)})."
        )


@dataclass(frozen=True)
class Estimate:
    """A profile and its caveats.

    Attributes:
        notes: plain sentences to be shown with every answer: what was assumed, and what it means.
        reproduction: of the run that the profile is made of.
    """

    profile: Profile
    notes: tuple[str, ...] = ()
    reproduction: Reproduction | None = None
