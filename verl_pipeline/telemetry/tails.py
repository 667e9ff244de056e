"""Who was waited for: the last trajectories of the batches, and replicas that are slow."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from verl_pipeline.telemetry.records import Pool
from verl_pipeline.telemetry.run_folder import Run
from verl_pipeline.telemetry.states import cause_code, code
from verl_pipeline.telemetry.timeline import Timeline, make_timeline

# As many trajectories as a reader looks at.
TAIL_PROMPTS = 20


@dataclass(frozen=True)
class TailPrompt:
    """A trajectory that others waited for.

    Attributes:
        waited_s: of the trainer's wait in a tail of generation, as long as it was in flight. Past
            the barrier of its wait for this one's batch.
        tail_s: of the tail, as long as it was in flight; past the barrier of the tails of the
            batches that the trainer waited for.
    """

    prompt: str
    session: int
    step: int | None
    replica: str | None
    response_tokens: int | None
    limit: int | None
    waited_s: float
    tail_s: float


def find_tail_prompts(run: Run) -> list[TailPrompt]:
    """Return the trajectories that were waited for longest."""
    timeline = make_timeline(run)
    lives, lengths = timeline.lives, timeline.lengths
    is_tail = timeline.states[Pool.ROLLOUT] == code(Pool.ROLLOUT, "tail")
    if timeline.replicas:
        codes = [cause_code(name) for name in ("tail of generation", "slow replica")]
        is_tail = np.isin(timeline.causes[Pool.TRAINER], codes)
    waits = timeline.states[Pool.TRAINER] == code(Pool.TRAINER, "wait_rollout")

    begins, finishes = lives.starts, lives.ends
    if timeline.replicas:
        begins, finishes = _cut_to_steps(timeline)

    def sum_during_lives(flags: np.ndarray) -> np.ndarray:
        """Of the parts with the flag: seconds during which each trajectory was in flight."""
        sums = np.concatenate([[0], np.cumsum(lengths * flags)])
        ends, starts = (np.searchsorted(timeline.edges, t) for t in (finishes, begins))
        return np.where(lives.is_validation, 0, sums[ends] - sums[starts]) / 1e6

    waited, tails = sum_during_lives(is_tail & waits), sum_during_lives(is_tail)
    order = np.lexsort((-tails, -waited))[:TAIL_PROMPTS]
    order = order[tails[order] > 0]
    names = ["prompt", "session", "step", "batch", "replica", "response_tokens", "limit"]
    rows = run.trajectories.select(names).take(pa.array(lives.rows[order])).to_pylist()
    found = []
    for place, row in zip(order.tolist(), rows, strict=True):
        batch = row.pop("batch")
        row["step"] = batch if row["step"] is None else row["step"]
        found.append(TailPrompt(**row, waited_s=float(waited[place]), tail_s=float(tails[place])))
    return found


def _cut_to_steps(timeline: Timeline) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of the trajectories within the steps that wait for them; int64 us."""
    lives = timeline.lives
    steps = np.array([step for step, _, _ in timeline.windows], np.int64)
    bounds = np.array([pair for _, *pair in timeline.windows], np.int64).reshape(-1, 2)
    order = np.argsort(steps)
    place = np.searchsorted(steps[order], lives.keys)
    is_known = place < len(steps)
    is_known[is_known] = steps[order][place[is_known]] == lives.keys[is_known]
    begin, end = np.zeros((2, len(lives.keys)), np.int64)
    begin[is_known], end[is_known] = bounds[order][place[is_known]].T
    starts = np.maximum(lives.starts, begin)
    # The edges have each end of a trajectory and of a step.
    return starts, np.maximum(np.minimum(lives.ends, end), starts)


def find_slow_replicas(run: Run) -> dict[str, float]:
    """Return the replicas that were slow (:data:`.in_flight.SLOW`) for most trajectories, each with
    how many times the others' seconds per token it needed."""
    lives = make_timeline(run).lives
    names = run.trajectories["replica"].take(pa.array(lives.rows))
    columns = {"slow": lives.is_slow.astype(float), "slowness": lives.slowness}
    table = pa.table({"name": names, **columns}).filter(names.is_valid())
    means = table.group_by("name").aggregate([("slow", "mean"), ("slowness", "mean")])
    slow = means.filter(pc.greater(means["slow_mean"], 0.5)).sort_by("name")
    return dict(zip(slow["name"].to_pylist(), slow["slowness_mean"].to_pylist(), strict=True))
