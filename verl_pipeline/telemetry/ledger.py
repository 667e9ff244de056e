"""The ledger of prompts: each one's life, and whether any is missing or doubled.

Invariants:
* A prompt of a batch that was trained is accounted for if each of its trajectories was trained or
  filtered, or its generation failed. What was in flight when the run ended, or the run was killed,
  is not lost.
* Nothing that a record says reaches a terminal unescaped.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from verl_pipeline.telemetry.run_folder import Run

# In the order in which they are looked at: the first one that holds is a trajectory's state.
STATES = ("trained", "filtered", "failed", "graded", "generated", "begun", "started", "submitted")


@dataclass(frozen=True)
class LedgerCheck:
    """Whether each prompt went where it should.

    Attributes:
        prompts, trajectories: of the training, in all.
        states: trajectories by their state (:data:`STATES`).
        lost: rows of trajectories that were neither trained nor filtered nor failed although the
            step of their batch was completed.
        short: (prompt, trajectories) of the prompts, in a step that was completed, that lack
            trajectories: their sessions have a gap, or there are fewer than the run's group size
            while no prompt has more (a data set may ask for other sizes, row by row).
        doubled: rows of trajectories that were trained more than once, or both trained and
            filtered.
        left_over: trajectories without a batch (modes of verl that sample ahead) that the run ended
            before it used.
    """

    prompts: int
    trajectories: int
    states: dict[str, int]
    lost: pa.Table
    short: list[tuple[str, int]]
    doubled: pa.Table
    left_over: int

    @property
    def is_sound(self) -> bool:
        return not (self.lost.num_rows or self.short or self.doubled.num_rows)


def add_states(trajectories: pa.Table) -> pa.Table:
    """Return the table with a column ``state``: the last that happened, of :data:`STATES`."""
    happened = [trajectories[name].is_valid() for name in STATES]
    state = pc.case_when(pc.make_struct(*happened), *(pa.scalar(name) for name in STATES))
    return trajectories.append_column("state", state)


def check_ledger(run: Run) -> LedgerCheck:
    """Look for prompts that are missing or doubled."""
    table = add_states(run.trajectories)
    table = table.filter(pc.invert(table["is_validation"]))
    ends = pc.is_in(table["state"], pa.array(["trained", "filtered", "failed"]))
    done = max((step.step for step in run.steps), default=0)
    is_due = pc.fill_null(pc.less_equal(table["batch"], done), False)
    lost = table.filter(pc.and_(is_due, pc.invert(ends)))
    is_both = pc.and_(table["trained"].is_valid(), table["filtered"].is_valid())
    doubled = table.filter(pc.or_(pc.greater(table["trainings"], 1), is_both))
    counts = pc.value_counts(table["state"].combine_chunks())
    return LedgerCheck(
        prompts=pc.count_distinct(table["prompt"]).as_py(),
        trajectories=table["session"].is_valid().to_numpy().sum().item(),
        states={row["values"]: row["counts"] for row in counts.to_pylist() if row["values"]},
        lost=lost,
        short=_find_short_groups(table.filter(is_due), run.header.group_size),
        doubled=doubled,
        left_over=table.filter(pc.and_(table["batch"].is_null(), pc.invert(ends))).num_rows
        if run.has_ended
        else 0,
    )


def select_prompts(
    run: Run, *, uid: str | None = None, step: int | None = None, is_lost: bool = False
) -> pa.Table:
    """Return the trajectories of a prompt, of a step (trained or filtered in it, or for its batch),
    or those that were lost, in the order of prompt and session."""
    table = check_ledger(run).lost if is_lost else add_states(run.trajectories)
    if uid is not None:
        table = table.filter(pc.equal(table["prompt"], uid))
    if step is not None:
        of_step = pc.equal(pc.coalesce(table["step"], table["batch"]), step)
        table = table.filter(pc.fill_null(of_step, False))
    return table.sort_by(
        [("submitted", "ascending"), ("prompt", "ascending"), ("session", "ascending")]
    )


def _find_short_groups(table: pa.Table, group_size: int) -> list[tuple[str, int]]:
    """Return the prompts that lack trajectories, with those that they have."""
    groups = table.group_by("prompt").aggregate([("session", "count_distinct"), ("session", "max")])
    sizes = groups["session_count_distinct"].to_numpy()
    ends = pc.fill_null(groups["session_max"], -1).to_numpy() + 1
    least = group_size if ends.max(initial=0) <= group_size else 0
    is_short = np.flatnonzero((sizes < ends) | (sizes < least))
    prompts = groups["prompt"].take(pa.array(is_short)).to_pylist()
    return list(zip(prompts, sizes[is_short].tolist(), strict=True))
