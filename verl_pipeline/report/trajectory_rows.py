"""The trajectories of a run as numpy arrays, each with the one thing that became of it.

Invariant: a trajectory has exactly one fate: ``validation`` if it is of one, else ``failed``,
``trained``, ``filtered``, ``waiting`` (generated, not yet used), ``queued`` (past the barrier: it
waits for its place on a replica) or ``running``.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from verl_pipeline.report.columns import Categories, read_categories, read_flags, read_numbers
from verl_pipeline.telemetry.run_folder import Run

_TEXTS = ("prompt", "replica", "reward_worker", "verdict", "reason", "version_spans")
_NUMBERS = (
    "session",
    "first_token",
    "first_version",
    "last_version",
    "prompt_tokens",
    "response_tokens",
    "limit",
    "reward",
)


@dataclass(frozen=True)
class TrajectoryRows:
    """Columns of n trajectories, in the order of ``Run.trajectories`` but without its rows of
    prompts; unknown numbers are NaN.

    Attributes:
        prompt, replica, reward_worker, verdict, reason: texts.
        version_spans: as in ``TrajectoryEvent``.
        fates: see the module; str (n,).
        step: the step that used it, or the one that it is for; float64 (n,), as all below.
        asked: when an agent loop had it.
        started: when it began on a replica: past the barrier when it had its place there, NaN
            before.
        first_token: when it was sampled.
        stopped: when it was generated or failed; the run's last time if neither.
    """

    prompt: Categories
    replica: Categories
    reward_worker: Categories
    verdict: Categories
    reason: Categories
    version_spans: Categories
    fates: np.ndarray
    session: np.ndarray
    step: np.ndarray
    asked: np.ndarray
    started: np.ndarray
    first_token: np.ndarray
    stopped: np.ndarray
    first_version: np.ndarray
    last_version: np.ndarray
    prompt_tokens: np.ndarray
    response_tokens: np.ndarray
    limit: np.ndarray
    reward: np.ndarray

    def __len__(self) -> int:
        return len(self.fates)


def read_trajectory_rows(run: Run) -> TrajectoryRows:
    """Return the trajectories of a run."""
    table = run.trajectories.filter(pc.is_valid(run.trajectories["session"]))
    times = {
        name: read_numbers(table, name)
        for name in ("started", "begun", "generated", "failed", "filtered", "trained")
    }
    happened = {name: ~np.isnan(times[name]) for name in times}
    fates = np.select(
        [
            read_flags(table, "is_validation"),
            happened["failed"],
            happened["trained"],
            happened["filtered"],
            happened["generated"],
            ~happened["begun"] & run.header.flows,
        ],
        ["validation", "failed", "trained", "filtered", "waiting", "queued"],
        "running",
    )
    started = np.where(happened["begun"], times["begun"], times["started"])
    started[fates == "queued"] = np.nan
    step, batch = read_numbers(table, "step"), read_numbers(table, "batch")
    stopped = np.where(happened["generated"], times["generated"], times["failed"])
    texts = {name: read_categories(table, name) for name in _TEXTS}
    numbers = {name: read_numbers(table, name) for name in _NUMBERS}
    return TrajectoryRows(
        prompt=texts["prompt"],
        replica=texts["replica"],
        reward_worker=texts["reward_worker"],
        verdict=texts["verdict"],
        reason=texts["reason"],
        version_spans=texts["version_spans"],
        fates=fates,
        session=numbers["session"],
        step=np.where(np.isnan(step), batch, step),
        asked=times["started"],
        started=started,
        first_token=numbers["first_token"],
        stopped=np.where(np.isnan(stopped), run.last_time, stopped),
        first_version=numbers["first_version"],
        last_version=numbers["last_version"],
        prompt_tokens=numbers["prompt_tokens"],
        response_tokens=numbers["response_tokens"],
        limit=numbers["limit"],
        reward=numbers["reward"],
    )
