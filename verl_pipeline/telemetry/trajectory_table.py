"""Folds the events of trajectories into one row for each.

Invariants:
* A row tells one life: if a trajectory was started again (after a crash, say), nothing of the
  earlier attempt is in it but the number of attempts.
* What is known of a prompt only (``session`` null) goes to all of its trajectories; a prompt that
  no trajectory was started for has a row of its own, whose ``session`` is null.
* No Python loop over trajectories.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from verl_pipeline.telemetry.record_files import make_schema
from verl_pipeline.telemetry.records import Moment, TrajectoryEvent

_KEY = ("prompt", "session", "is_validation")
# Moments have columns of their own; ``t`` is their value.
_VALUES = [
    field for field in make_schema(TrajectoryEvent) if field.name not in ("moment", "t", *_KEY)
]
# What a prompt's own events say of its trajectories.
_SHARED_VALUES = ("batch", "step", "reason", "row")
_AFTER_START = [moment for moment in Moment if moment not in (Moment.SUBMITTED, Moment.STARTED)]


@dataclass(frozen=True)
class _Keys:
    """Which row each event belongs to: ``rows`` int64 [events]; the rows' ``prompts`` (codes),
    ``sessions`` (-1: null) and ``validations``, each [rows]."""

    rows: np.ndarray
    prompts: np.ndarray
    sessions: np.ndarray
    validations: np.ndarray


def make_trajectory_table(events: pa.Table, starts: list[float]) -> pa.Table:
    """Return one row a trajectory.

    Args:
        events: columns are the fields of ``TrajectoryEvent``, times on one clock.
        starts: when the run was started and started again, ascending.

    Returns:
        Columns: the fields of ``TrajectoryEvent`` but ``moment`` and ``t``; the time of each
        :class:`.Moment`, null if it did not happen; ``attempts``: how often it was started;
        ``trainings``: how often it was trained since the run was last started before its last
        training (1 in a sound run).
    """
    prompts = _encode(events["prompt"])
    keys = _find_rows(events, prompts)
    size = len(keys.prompts)
    # Events by time. The table itself keeps its order: copying millions of texts takes seconds.
    order = pc.sort_indices(events["t"]).to_numpy()
    times = events["t"].to_numpy()[order]
    rows = keys.rows[order]
    moments = np.array([str(m) for m in Moment])
    codes = pc.index_in(events["moment"], pa.array(moments)).to_numpy()[order]
    columns: dict[str, pa.Array] = {}
    happened = {}
    for code, moment in enumerate(Moment):
        of_moment = codes == code
        happened[moment] = _keep_last(size, rows[of_moment], times[of_moment])
    started = happened[Moment.STARTED]
    for moment in _AFTER_START:
        happened[moment][happened[moment] < started] = np.nan
    for field in _VALUES:
        columns[field.name] = _fold_values(events[field.name], order, rows, size)
    is_prompt = keys.sessions < 0
    parents = _find_parents(keys, is_prompt)
    for moment, at in happened.items():
        columns[moment] = _make_times(_inherit(at, parents))
    for name in _SHARED_VALUES:
        columns[name] = _inherit_column(columns[name], parents)
    columns["attempts"] = pa.array(np.bincount(rows[codes == 1], minlength=size))
    columns["trainings"] = pa.array(_count_trainings(happened, times, codes, rows, starts))
    table = pa.table(
        {
            "prompt": prompts.dictionary.take(pa.array(keys.prompts)),
            "session": pa.array(keys.sessions, mask=is_prompt),
            "is_validation": pa.array(keys.validations.astype(bool)),
            **{str(name): column for name, column in columns.items()},
        }
    )
    first_token = pc.greater_equal(table["first_token"], table["started"])
    index = table.schema.get_field_index("first_token")
    known = pc.if_else(pc.fill_null(first_token, True), table["first_token"], None)
    table = table.set_column(index, "first_token", known)
    # A prompt's own row stands only for trajectories that were never started.
    has_children = np.zeros(size, bool)
    has_children[parents[parents >= 0]] = True
    return table.filter(pa.array(~(is_prompt & has_children)))


def _encode(column: pa.ChunkedArray) -> pa.DictionaryArray:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # of an empty table
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    return array.dictionary_encode()


def _find_rows(events: pa.Table, prompts: pa.DictionaryArray) -> _Keys:
    sessions = pc.fill_null(events["session"], -1).to_numpy()
    sessions = np.where(sessions < 0, -1, sessions)
    numbers, codes = np.unique(sessions, return_inverse=True)
    validations = events["is_validation"].to_numpy().astype(np.int64)
    width = max(len(numbers), 1)
    keys = (prompts.indices.to_numpy().astype(np.int64) * width + codes) * 2 + validations
    unique, rows = np.unique(keys, return_inverse=True)
    return _Keys(rows, unique // 2 // width, numbers[unique // 2 % width], unique % 2)


def _find_parents(keys: _Keys, is_prompt: np.ndarray) -> np.ndarray:
    """By row: the row of its prompt's own events, or -1."""
    pairs = keys.prompts * 2 + keys.validations
    own = np.full(int(pairs.max(initial=-1)) + 1, -1)
    own[pairs[is_prompt]] = np.flatnonzero(is_prompt)
    parents = own[pairs]
    parents[is_prompt] = -1
    return parents


def _keep_last(size: int, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the last value of each row, NaN where there is none; events are in order."""
    kept = np.full(size, np.nan)
    kept[rows] = values
    return kept


def _fold_values(
    column: pa.ChunkedArray, order: np.ndarray, rows: np.ndarray, size: int
) -> pa.Array:
    """Return each row's last value that is not null.

    Args:
        order: places of the events in ``column``, by time; int64 [events].
        rows: of the events in that order; int64 [events].
    """
    known = column.is_valid().to_numpy()[order]
    places = np.full(size, -1)
    places[rows[known]] = order[known]
    return pc.take(column, pa.array(places, mask=places < 0)).combine_chunks()


def _inherit(times: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Fill what a row lacks with what its parent has."""
    lacks = np.isnan(times) & (parents >= 0)
    filled = times.copy()
    filled[lacks] = times[parents[lacks]]
    return filled


def _inherit_column(column: pa.Array, parents: np.ndarray) -> pa.Array:
    return pc.coalesce(column, pc.take(column, pa.array(parents, mask=parents < 0)))


def _make_times(times: np.ndarray) -> pa.Array:
    return pa.array(times, mask=np.isnan(times))


def _count_trainings(
    happened: dict[Moment, np.ndarray],
    times: np.ndarray,
    codes: np.ndarray,
    rows: np.ndarray,
    starts: list[float],
) -> np.ndarray:
    """By row: trainings in the same start of the run as the last one; int64 [rows]."""
    is_training = codes == list(Moment).index(Moment.TRAINED)
    last = happened[Moment.TRAINED]
    edges = np.array(starts)
    trained_in = np.searchsorted(edges, times[is_training], side="right")
    last_in = np.searchsorted(edges, last, side="right")
    at = rows[is_training]
    same = trained_in == last_in[at]
    return np.bincount(at[same], minlength=len(last))
