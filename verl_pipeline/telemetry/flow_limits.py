"""What no schedule past the barrier can beat, from what a run has measured.

A step takes at least the update with its publication; what the pool needs for a batch's tokens at
the rate that it has while its places are busy; and, since a batch is sampled with weights that are
at most ``staleness`` updates old, (longest trajectory + update) / (1 + staleness). The same limits
as the planner's (:mod:`verl_pipeline.planner.limits`), which has no run to measure.

Invariant: everything is a mean over the steps in which the pipeline is full.
"""

from dataclasses import dataclass

import numpy as np

from verl_pipeline.telemetry.parts import BALANCED, Parts, sum_codes
from verl_pipeline.telemetry.records import Pool
from verl_pipeline.telemetry.run_folder import Run
from verl_pipeline.telemetry.states import STATES, code
from verl_pipeline.telemetry.timeline import Timeline, make_timeline

# The metric of a run that chooses its staleness.
DIAL = "pipeline/staleness/dial"


@dataclass(frozen=True)
class FlowLimits:
    """Seconds of a step, and what they are made of.

    Attributes:
        update_s: the trainer's own work.
        publish_s: it published weights.
        work_s: the pool's replicas generate a batch, all of their places busy.
        longest_s: the longest trajectory of a batch, from its place on a replica to its reward.
        reward_s: of the trainer's wait for its batch, that for rewards alone.
        wait_s: that for generation.
        serial_s: checkpoints and validations, which the trainer waits for.
        staleness: of the run; with ``auto`` the mean of what it chose.
    """

    update_s: float
    publish_s: float
    work_s: float
    longest_s: float
    reward_s: float
    wait_s: float
    serial_s: float
    staleness: float

    @property
    def train_s(self) -> float:
        """The trainer's part."""
        return self.update_s + self.publish_s

    @property
    def chain_s(self) -> float:
        """1 + staleness steps take the longest trajectory, and the update on it."""
        return (self.longest_s + self.update_s) / (1 + self.staleness)

    @property
    def step_s(self) -> float:
        """The ideal step."""
        return max(self.train_s, self.work_s, self.chain_s) + self.serial_s

    @property
    def bound(self) -> str:
        """What a step hangs on: ``training``, ``rollout``, ``longest``, ``reward``, ``balanced``.

        ``reward`` if the trainer waits for rewards alone for longer than for generation, and for
        more than :data:`BALANCED` of the ideal step; else the largest limit, or ``balanced`` if
        training and generation are the largest and differ by less than :data:`BALANCED`. It is not
        ``longest`` if the trainer hardly waits: in a short run one batch may be unlike the others.
        """
        if self.reward_s > max(self.wait_s, BALANCED * self.step_s):
            return "reward"
        most = max(self.train_s, self.work_s)
        if self.chain_s > most and self.wait_s > BALANCED / 2 * self.step_s:
            return "longest"
        if abs(self.train_s - self.work_s) <= BALANCED * most:
            return "balanced"
        return "training" if self.train_s > self.work_s else "rollout"


def measure_limits(run: Run, parts: list[Parts]) -> FlowLimits:
    """Return the limits of the steps ``parts``, at least one, of a run past the barrier."""
    timeline, steps = make_timeline(run), [part.step for part in parts]
    dials = [record.metrics.get(DIAL) for record in run.steps if record.step in steps]
    chosen_dials = [dial for dial in dials if dial is not None and np.isfinite(dial) and dial >= 1]
    trainer = timeline.states[Pool.TRAINER] == code(Pool.TRAINER, "wait_rollout")
    waits = sum_codes(
        timeline.steps, trainer.astype(int), timeline.lengths, len(timeline.windows), 2
    )[:, 1]
    chosen = np.isin([step for step, _, _ in timeline.windows], steps)
    return FlowLimits(
        update_s=_average([part.train_s for part in parts]),
        publish_s=_average([part.publish_s for part in parts]),
        work_s=_measure_work(timeline, chosen),
        longest_s=_measure_longest(timeline, steps),
        reward_s=_average([part.reward_s for part in parts]),
        wait_s=float(waits[chosen].mean()) / 1e6,
        serial_s=_average([part.serial_s for part in parts]),
        staleness=_average(chosen_dials) if chosen_dials else float(run.header.staleness or 0),
    )


def _measure_work(timeline: Timeline, chosen: np.ndarray) -> float:
    """Seconds that a mean replica generates with its places busy, and would for what it sampled
    with fewer.

    Args:
        chosen: by window, whether it counts.
    """
    size, windows = len(STATES[Pool.ROLLOUT]), len(timeline.windows)
    seconds, tokens = np.zeros(size), np.zeros(size)
    for replica in timeline.replicas:
        place = replica.steps, replica.states
        seconds += sum_codes(*place, replica.lengths, windows, size)[chosen].sum(axis=0) / 1e6
        tokens += sum_codes(*place, replica.tokens, windows, size)[chosen].sum(axis=0)
    full = code(Pool.ROLLOUT, "generating")
    rest = tokens.sum() - tokens[full]
    more = rest / tokens[full] * seconds[full] if tokens[full] > 0 else 0.0
    return float(seconds[full] + more) / max(len(timeline.replicas), 1) / int(chosen.sum())


def _measure_longest(timeline: Timeline, steps: list[int]) -> float:
    lives = timeline.lives
    own = ~lives.is_validation & np.isin(lives.keys, steps)
    batches, places = np.unique(lives.keys[own], return_inverse=True)
    longest = np.zeros(len(batches), np.int64)
    np.maximum.at(longest, places, (lives.graded - lives.starts)[own])
    return float(longest.mean()) / 1e6 if len(longest) else 0.0


def _average(values: list[float]) -> float:
    return sum(values) / len(values)
