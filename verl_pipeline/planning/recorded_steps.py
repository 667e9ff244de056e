"""What a plan reads of a run: its steady steps, their bills and the lengths that they trained.

Invariant: a run that was read has enough complete steps for a mean, lengths, and a start that a run
can have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from verl_pipeline.planner.profile_error import ProfileError
from verl_pipeline.telemetry.accounting import Bill, Parts, bill_steps, list_steady_steps
from verl_pipeline.telemetry.records import Header, Pool
from verl_pipeline.telemetry.run_folder import Run, load_run
from verl_pipeline.telemetry.timeline import make_timeline

# Steps in which the pipeline is full; of fewer, nothing is a mean.
FEWEST_STEPS = 3
LARGEST_COUNT = 65_536


@dataclass(frozen=True, eq=False)
class Lengths:
    """Tokens of responses and of their prompts, float64 [trajectories] each."""

    responses: np.ndarray
    prompts: np.ndarray


@dataclass(frozen=True, eq=False)
class RecordedSteps:
    """A run's steady steps.

    Attributes:
        parts: of each, ascending.
        bills: of all pools, of these steps only.
        lengths: of what they trained or filtered.
    """

    run: Run
    parts: Sequence[Parts]
    bills: Sequence[Bill]
    lengths: Lengths

    @classmethod
    def read(cls, folder: Path) -> "RecordedSteps":
        """Read a run of any mode.

        Raises:
            RunFolderError: it is no run's folder, or of another version, or cannot be read.
            ProfileError: it has recorded too few steps, no lengths, or what no run has.
        """
        run = load_run(folder)
        _check_header(run)
        parts = list_steady_steps(run)
        steps = {part.step for part in parts}
        if len(steps) < FEWEST_STEPS:
            raise ProfileError(
                f"{folder}: {len(steps)} complete steps are no mean; give a run of at least "
                f"{FEWEST_STEPS + 2} steps"
            )
        bills = [bill for bill in bill_steps(run) if bill.step in steps]
        return cls(run, parts, bills, _read_lengths(run, steps))

    @property
    def header(self) -> Header:
        return self.run.header

    @property
    def numbers(self) -> set[int]:
        """The steps."""
        return {part.step for part in self.parts}

    @property
    def step_s(self) -> float:
        """Mean seconds of a step."""
        return float(np.mean([part.step_s for part in self.parts]))

    def sum_trainer(self, *names: str) -> np.ndarray:
        """Seconds of the trainer under some names of its bill, in each step, float64 [steps]."""
        trainer = [bill for bill in self.bills if bill.pool == Pool.TRAINER]
        return np.array([sum(bill.seconds[name] for name in names) for bill in trainer])

    def measure_update(self) -> np.ndarray:
        """Seconds of each update, with what the driver does around it, float64 [steps]."""
        return self.sum_trainer("update", "advantage", "other", "wait_data")


def _check_header(run: Run) -> None:
    header = run.header
    for name in ("batch_size", "group_size", "replicas", "trainer_devices", "rollout_devices"):
        value = getattr(header, name)
        if not 1 <= value <= LARGEST_COUNT:
            raise ProfileError(
                f"{run.folder}: the run's record of its start has {name}={value}, which no run "
                "has; give another run"
            )


def _read_lengths(run: Run, steps: set[int]) -> Lengths:
    lives = make_timeline(run).lives
    chosen = np.isin(lives.keys, list(steps)) & ~lives.is_validation
    table = run.trajectories.take(pa.array(lives.rows[chosen]))
    responses, prompts = (
        table[name].cast("float64").to_numpy() for name in ("response_tokens", "prompt_tokens")
    )
    # NaN compares as False: what has no length is left out.
    known = (responses >= 1) & (prompts >= 1)
    if not known.any():
        raise ProfileError(
            f"{run.folder}: no trajectory of its complete steps has a length; give a run whose "
            "telemetry was on"
        )
    return Lengths(responses[known], prompts[known])
