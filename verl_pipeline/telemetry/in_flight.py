"""What was in flight when, from the table of trajectories: counts over time, without Python loops.

Invariants:
* Times are whole microseconds since the run's start, so that sums of seconds are exact.
* A trajectory without an end lasts until the end of the start of the run that it was started in.
* Past the barrier a trajectory is in flight from when it has its place on a replica.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Starts and ends, int64 us [intervals] each.
Intervals = tuple[np.ndarray, np.ndarray]
# A replica is slow if it needs this many times the seconds per token of the fastest quarter.
SLOW = 1.25


@dataclass(frozen=True)
class Lives:
    """The trajectories that were started, as arrays [trajectories].

    Attributes:
        rows: int64, places in the table.
        keys: int64, the step that trained it, or the batch that it is for; -1 where unknown.
        asked: int64 us, when an agent loop had it.
        starts, ends: int64 us, of generation; both the run's last moment where it still waits for
            its place.
        graded: int64 us, end of grading; ``ends`` where nothing was graded.
        is_validation: bool.
        slowness: float64, how many times the seconds per token of the fastest quarter of replicas
            its own needed for its batch; 1 where that is not known.
    """

    rows: np.ndarray
    keys: np.ndarray
    asked: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    graded: np.ndarray
    is_validation: np.ndarray
    slowness: np.ndarray

    @property
    def is_slow(self) -> np.ndarray:
        """Sampled by a slow replica; bool [trajectories]."""
        return self.slowness > SLOW


def to_microseconds(times: np.ndarray | float, origin: float) -> np.ndarray:
    """Return times (seconds since the epoch, not NaN) as int64 microseconds since ``origin``."""
    return np.rint((np.asarray(times) - origin) * 1e6).astype(np.int64)


def list_lives(
    trajectories: pa.Table, periods: list[tuple[float, float]], flows: bool = False
) -> Lives:
    """Return when each trajectory was generated and graded.

    Args:
        periods: (begin, end) of each start of the run, ascending; seconds since the epoch.
        flows: whether trajectories wait for their places (``Header.flows``).
    """
    origin = periods[0][0]
    started = _coalesce(trajectories, "started", "submitted")
    has_session = trajectories["session"].is_valid().to_numpy()
    rows = np.flatnonzero(~np.isnan(started) & has_session)
    trajectories = trajectories.take(pa.array(rows))
    started = started[rows]
    ended = _coalesce(trajectories, "generated", "failed", "graded", "filtered", "trained")
    graded = _coalesce(trajectories, "graded", "failed")
    begins = np.array([begin for begin, _ in periods])
    period = np.maximum(np.searchsorted(begins, started, side="right") - 1, 0)
    last = np.array([end for _, end in periods])[period]
    # What was generated and never graded (the run was killed) was being graded until the end.
    is_open = pc.is_valid(trajectories["generated"]).to_numpy() & np.isnan(graded)
    is_open &= np.isnan(_coalesce(trajectories, "filtered", "trained"))
    asked = started = np.clip(started, begins[period], last)
    if flows:
        begun = _coalesce(trajectories, "begun")
        begun = np.where(np.isnan(begun), np.where(np.isnan(ended), last, started), begun)
        started = np.clip(begun, started, last)
    ended = np.clip(np.where(np.isnan(ended), last, ended), started, last)
    # A reward may come after the start of the run that generated it has ended.
    graded = np.where(np.isnan(graded), np.where(is_open, last, ended), graded)
    graded = np.clip(graded, ended, last)
    keys = pc.coalesce(trajectories["step"], trajectories["batch"], pa.scalar(-1)).to_numpy()
    return Lives(
        rows=rows,
        keys=keys,
        asked=to_microseconds(asked, origin),
        starts=to_microseconds(started, origin),
        ends=to_microseconds(ended, origin),
        graded=to_microseconds(graded, origin),
        is_validation=trajectories["is_validation"].to_numpy(),
        slowness=_measure_slowness(trajectories, keys),
    )


def count_over(edges: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return how many of the intervals hold in each part between edges.

    Args:
        edges: int64 us [parts + 1], ascending, with all starts and ends within its range.
        starts, ends: int64 us [intervals].

    Returns:
        int64 [parts].
    """
    size = len(edges)
    up = np.bincount(np.searchsorted(edges, starts), minlength=size)
    down = np.bincount(np.searchsorted(edges, ends), minlength=size)
    return np.cumsum(up - down)[: size - 1]


def find_peaks(counts: np.ndarray, is_fresh: np.ndarray) -> np.ndarray:
    """Return the largest count since the last part that is fresh; int64 [parts]."""
    segments = np.cumsum(is_fresh)
    width = int(counts.max(initial=0)) + 1
    return np.maximum.accumulate(segments * width + counts) - segments * width


def group_last(keys: np.ndarray, times: np.ndarray) -> dict[int, int]:
    """Return the latest time of each key."""
    order = np.lexsort((times, keys))
    keys, times = keys[order], times[order]
    is_last = np.append(keys[1:] != keys[:-1], True) if len(keys) else np.zeros(0, bool)
    return dict(zip(keys[is_last].tolist(), times[is_last].tolist(), strict=True))


def _coalesce(table: pa.Table, *names: str) -> np.ndarray:
    """Return the first of the columns that is known; float64 [rows], NaN where none is."""
    known = pc.coalesce(*(table[name] for name in names))
    return pc.fill_null(known, np.nan).to_numpy()


def _measure_slowness(trajectories: pa.Table, keys: np.ndarray) -> np.ndarray:
    """See :class:`Lives`; seconds a token are those of all trajectories of a batch on a replica."""
    began = _coalesce(trajectories, "first_token", "begun", "started")
    seconds = pc.fill_null(trajectories["generated"], np.nan).to_numpy() - began
    tokens = pc.fill_null(trajectories["response_tokens"], 0).to_numpy().astype(float)
    encoded = trajectories["replica"].combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.array([], pa.string())
    encoded = encoded.dictionary_encode()
    replicas = len(encoded.dictionary)
    codes = pc.fill_null(encoded.indices, -1).to_numpy()
    is_measured = (codes >= 0) & (tokens > 0) & (seconds > 0) & (keys >= 0)
    is_measured &= ~trajectories["is_validation"].to_numpy()
    if replicas < 2 or not is_measured.any():
        return np.ones(len(keys))
    batches, places = np.unique(keys, return_inverse=True)
    cells = places * replicas + codes
    shape, size = (len(batches), replicas), len(batches) * replicas
    totals = [
        np.bincount(cells[is_measured], values[is_measured], size).reshape(shape)
        for values in (seconds, tokens)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        pace = totals[0] / totals[1]
    ordered = np.sort(pace, axis=1)  # NaN last
    quarter = np.maximum(np.isfinite(pace).sum(axis=1) - 1, 0) // 4
    fastest = np.take_along_axis(ordered, quarter[:, None], axis=1)
    slowness = np.nan_to_num(pace / fastest, nan=1.0)
    return np.where(codes >= 0, slowness[places, codes], 1.0)
