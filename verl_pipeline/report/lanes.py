"""The lanes of the timeline, and which trajectories have a place in them.

Lanes from above: the steps, the trainer's driver and ranks, the replicas, the reward workers. A
replica's lane has rows below for its trajectories.

Invariants:
* Trajectories of one row do not overlap, unless a replica has more at once than
  :data:`MAX_ROWS`.
* Of trajectories, the longest of each step come first, since they are what a step waits for.
"""

from dataclasses import dataclass

import numpy as np

from verl_pipeline.report.columns import read_categories
from verl_pipeline.report.trajectory_rows import TrajectoryRows
from verl_pipeline.telemetry.records import Pool
from verl_pipeline.telemetry.run_folder import Run

MAX_TRAJECTORIES = 12_000
MAX_LANES = 16
MAX_ROWS = 48
# In pixels.
LANE_HEIGHT, ROW_HEIGHT, LANE_GAP = 24, 5, 5
STEPS = "step"


@dataclass
class Lane:
    pool: str
    name: str
    top: float = 0.0
    height: float = LANE_HEIGHT
    # Of trajectories' rows below the lane's own bar.
    rows: int = 0


def list_lanes(run: Run, notes: list[str]) -> list[Lane]:
    """Return the lanes from above, at most :data:`MAX_LANES` a pool; a note says what else is."""
    pools, names = read_categories(run.spans, "pool"), read_categories(run.spans, "lane")
    found = {("rollout", name) for name in read_categories(run.gauges, "lane").names}
    found |= {("rollout", name) for name in read_categories(run.trajectories, "replica").names}
    for pool in pools.names:
        present = np.unique(names.codes[pools.select(pool)])
        found |= {(pool, names.names[code]) for code in present if code >= 0}
    lanes = [Lane("", STEPS)]
    for pool in Pool:
        own = sorted((name for kind, name in found if kind == pool), key=_sort_lane)
        if len(own) > MAX_LANES:
            notes.append(f"{MAX_LANES} of {len(own):,} lanes of the {pool} pool are drawn.")
        lanes += [Lane(pool, name) for name in own[:MAX_LANES]]
    return lanes


def _sort_lane(name: str) -> tuple[bool, str, int]:
    """The driver first, then by number."""
    word, _, number = name.rpartition(" ")
    return (name != "driver", word, int(number) if number.isdecimal() else 0)


def stack_lanes(lanes: list[Lane]) -> float:
    """Give each lane its top and height, and return the height of all."""
    top = 0.0
    for lane in lanes:
        lane.top = top
        lane.height = LANE_HEIGHT + lane.rows * ROW_HEIGHT
        top += lane.height + LANE_GAP
    return top


def pack_trajectories(
    rows: TrajectoryRows, picked: np.ndarray, lanes: list[Lane], notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Choose trajectories, and give each a row of its replica's lane, such that none overlap.

    Returns:
        Places of the chosen ones in ``rows`` (n,) and their row in the lane (n,).
    """
    names = [lane.name if lane.pool == "rollout" else None for lane in lanes]
    lane_of = np.array([names.index(n) if n in names else -1 for n in rows.replica.names] + [-1])
    lane = lane_of[rows.replica.codes]
    known = np.flatnonzero((lane >= 0) & ~np.isnan(rows.started))
    kept = _keep_longest(np.intersect1d(known, picked), rows, MAX_TRAJECTORIES)
    if len(kept) < len(known):
        notes.append(
            f"{len(kept):,} of {len(known):,} trajectories are drawn, the longest of each step; "
            "the curve of running requests has all."
        )
    kept = kept[np.argsort(rows.started[kept], kind="stable")]
    free: list[list[float]] = [[] for _ in lanes]
    slots = np.zeros(len(kept), int)
    for place, index in enumerate(kept.tolist()):
        ends = free[lane[index]]
        start, end = rows.started[index], rows.stopped[index]
        slot = next((i for i, free_at in enumerate(ends) if free_at <= start), len(ends))
        ends[slot : slot + 1] = [end]
        slots[place] = slot
    most = max((len(ends) for ends in free), default=0)
    for owner, ends in zip(lanes, free, strict=True):
        owner.rows = min(len(ends), MAX_ROWS)
    if most > MAX_ROWS:
        notes.append(f"More than {MAX_ROWS} trajectories at once share rows of a replica's lane.")
        slots %= MAX_ROWS
    return kept, slots


def _keep_longest(places: np.ndarray, rows: TrajectoryRows, limit: int) -> np.ndarray:
    if len(places) <= limit:
        return places
    step = np.nan_to_num(rows.step[places], nan=-1)
    order = np.lexsort((rows.started[places] - rows.stopped[places], step))
    ranked = places[order]
    begins = np.flatnonzero(np.diff(step[order], prepend=-2))
    rank = np.arange(len(order)) - np.repeat(begins, np.diff([*begins, len(order)]))
    return ranked[np.argsort(rank, kind="stable")[:limit]]


def place_spans(run: Run, lanes: list[Lane]) -> np.ndarray:
    """Return the lane of each span, -1 if it has none: int (n,)."""
    pools, names = read_categories(run.spans, "pool"), read_categories(run.spans, "lane")
    place = np.full(len(run.spans), -1)
    for index, lane in enumerate(lanes):
        place[pools.select(lane.pool) & names.select(lane.name)] = index
    place[read_categories(run.spans, "name").select(STEPS)] = 0
    return place
