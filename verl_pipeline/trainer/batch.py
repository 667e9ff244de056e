"""One complete batch between sampling and update: was it sampled as it should be, which rows train?

Invariants:
* One weight version, the one the schedule gave the batch, sampled every trajectory.
* A missing trajectory or a failed grader is counted as infrastructure, never as a reward of 0.
* Nothing here changes a batch: the caller drops rows and zeroes advantages.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from verl_pipeline.filters import BatchView
from verl_pipeline.filters.infrastructure import VERDICT as INFRASTRUCTURE
from verl_pipeline.number_formats import format_percent
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, ConfigError
from verl_pipeline.trainer.reward_value import is_reward, read_reward
from verl_pipeline.trainer.schedule import ROLLING, Dial, oldest_allowed_version


class StalenessViolation(RuntimeError):
    """A batch was not sampled by the version that the schedule gives it."""


class TooManyFailures(RuntimeError):
    """Infrastructure lost more of a batch than the user allows."""


@dataclass(frozen=True)
class TrajectoryBatch:
    """A complete batch of n trajectories, in the data loader's order.

    Attributes:
        keys: names of the trajectories (:mod:`verl_pipeline.trainer.trajectory_keys`).
        version_spans: int64, shape (n, 2); weight version at the first and at the last token.
        view: what the filters see.
        reward_reports: what the reward function reported beside its score, one dict a trajectory.
        generated_at: end of the last generation, seconds since the epoch; 0 if unknown.
        completed_at: when the last trajectory was stored with its reward; 0 if unknown.
    """

    keys: list[str]
    version_spans: np.ndarray
    view: BatchView
    reward_reports: list[dict]
    generated_at: float
    completed_at: float = 0.0

    @property
    def session_reports(self) -> list[dict]:
        """One report a trajectory requested: of one that an agent loop split, its last row's."""
        members = zip(self.view.uids, self.view.sessions.tolist(), strict=True)
        return list(dict(zip(members, self.reward_reports, strict=True)).values())


@dataclass(frozen=True)
class SamplingReport:
    """How the sampling of one batch ended.

    Attributes:
        group_sizes: trajectories requested, by prompt.
        missing: how many of them failed and have no row.
        first_error: traceback of the first failure, if a worker recorded one.
    """

    group_sizes: dict[str, int]
    missing: int
    first_error: str | None

    @property
    def requested(self) -> int:
        """Trajectories requested."""
        return sum(self.group_sizes.values())


def check_versions(batch: TrajectoryBatch, k: int, expected: int | None, dial: Dial) -> None:
    """Compare each trajectory's versions with the staleness bound, and with what the mode promises.

    Args:
        expected: with a barrier, the version that the pool held when batch k was submitted; after a
            validation it may be newer than the table of the schedule says.

    Raises:
        StalenessViolation: naming the first trajectory that differs, or the bound.
    """
    oldest = oldest_allowed_version(k, dial.staleness)
    if expected is not None and not oldest <= expected < k:
        raise StalenessViolation(
            f"batch {k} was submitted with v_{expected}, which violates staleness {dial.staleness}"
        )
    for key, (first, last) in zip(batch.keys, batch.version_spans.tolist(), strict=True):
        sampled = f"batch {k}: {key} was sampled with v_{first}..v_{last}"
        if expected is not None and (first, last) != (expected, expected):
            raise StalenessViolation(f"{sampled}, not v_{expected}")
        if not oldest <= first <= last < k:
            raise StalenessViolation(
                f"{sampled}; staleness {dial.staleness} allows v_{oldest}..v_{k - 1}"
            )
        if dial.mode == ROLLING and first != last:
            raise StalenessViolation(f"{sampled}, and {ROLLING} samples with one version")


def check_validation(version: int, tags: Iterable[Mapping[str, Any]]) -> None:
    """Check that v_version alone has sampled a validation.

    Args:
        tags: of its trajectories.

    Raises:
        StalenessViolation: naming what another version has sampled.
    """
    for tag in tags:
        first, last = tag["min_global_steps"], tag["max_global_steps"]
        if (first, last) != (version, version):
            raise StalenessViolation(
                f"validation of v_{version}: a trajectory was sampled with v_{first}..v_{last}"
            )


def check_held_version(k: int, oldest: int, staleness: int) -> None:
    """Compare batch k of a checkpoint, whose oldest version is ``oldest``, with the staleness.

    Raises:
        ConfigError: it is too old for this staleness.
    """
    if oldest < oldest_allowed_version(k, staleness):
        raise ConfigError(
            f"{PIPELINE_KEY}.staleness={staleness}: the checkpoint holds batch {k}, sampled with "
            f"v_{oldest}, too old for this; resume with the staleness that the checkpoint was "
            "written with"
        )


def compute_sampling_metrics(
    batch: TrajectoryBatch, k: int, submitted_at: float | None
) -> dict[str, float]:
    """When and with which weights batch k was sampled.

    Args:
        submitted_at: seconds since the epoch; None if an earlier run submitted it.

    Returns:
        ``pipeline/staleness`` (of the oldest token) with ``/mean`` (of all trajectories' first and
        last tokens), ``pipeline/mixed_share`` (trajectories with several versions) and, if it is
        known, ``pipeline/batch/generating_s`` and ``pipeline/batch/complete_s``.
    """
    ages = k - 1 - batch.version_spans
    metrics = {
        "pipeline/staleness": float(ages.max(initial=0)),
        "pipeline/staleness/mean": float(ages.mean()) if ages.size else 0.0,
        "pipeline/mixed_share": float((ages[:, 0] != ages[:, 1]).mean()) if ages.size else 0.0,
    }
    if submitted_at and batch.generated_at:
        metrics["pipeline/batch/generating_s"] = batch.generated_at - submitted_at
    if submitted_at and batch.completed_at:
        metrics["pipeline/batch/complete_s"] = batch.completed_at - submitted_at
    return metrics


def check_failures(
    k: int, report: SamplingReport, batch: TrajectoryBatch, max_share: float
) -> dict[str, float]:
    """Count what infrastructure cost: missing trajectories and those that no grader could judge.

    Returns:
        ``pipeline/infrastructure/*`` metrics.

    Raises:
        TooManyFailures: their share is above ``max_share``; the first traceback is shown.
    """
    # By trajectory requested: a member that an agent loop split has several rows.
    view = batch.view
    rows = [row for row, verdict in enumerate(view.verdicts) if verdict == INFRASTRUCTURE]
    ungraded = len({(view.uids[row], int(view.sessions[row])) for row in rows})
    reasons = [batch.reward_reports[row].get("reason") for row in rows]
    share = (report.missing + ungraded) / report.requested if report.requested else 0.0
    if share > max_share:
        first = report.first_error or next(filter(None, reasons), "(see the grader's log)")
        raise TooManyFailures(
            f"batch {k}: of {report.requested} trajectories {report.missing} failed and {ungraded} "
            f"could not be graded: {format_percent(share, 0)} is above "
            f"{PIPELINE_KEY}.max_infrastructure_share={max_share}. First failure:\n"
            f"{first}"
        )
    return {
        "pipeline/infrastructure/missing": float(report.missing),
        "pipeline/infrastructure/verdicts": float(ungraded),
        "pipeline/infrastructure/share": share,
    }


def compute_reward_metrics(reward_reports: Sequence[dict]) -> dict[str, float]:
    """What graders that give their name (``grader``) reported of a batch.

    Returns:
        ``reward/<grader>/verdict/<verdict>`` and ``.../tier/<isolation tier>`` (shares of its
        trajectories), and for each of its ``figures`` (:func:`read_figures`) ``.../p50`` and
        ``.../p95``.
    """
    metrics: dict[str, float] = {}
    for grader, rows in _group_by_grader(reward_reports).items():
        prefix = f"reward/{grader}"
        metrics |= _compute_shares(rows, "verdict", prefix) | _compute_shares(rows, "tier", prefix)
        figures = [read_figures(row) for row in rows]
        for name in dict.fromkeys(name for row in figures for name in row):
            values = np.array([row[name] for row in figures if name in row])
            p50, p95 = np.percentile(values, [50, 95])
            metrics[f"{prefix}/{name}/p50"] = float(p50)
            metrics[f"{prefix}/{name}/p95"] = float(p95)
    return metrics


def compute_verdict_shares(reward_reports: Sequence[dict], prefix: str) -> dict[str, float]:
    """``<prefix>/<grader>/verdict/<verdict>``, as shares of the trajectories of each grader."""
    metrics: dict[str, float] = {}
    for grader, rows in _group_by_grader(reward_reports).items():
        metrics |= _compute_shares(rows, "verdict", f"{prefix}/{grader}")
    return metrics


def read_figures(report: dict) -> dict[str, float]:
    """The numbers that a grader reports about its own work.

    They are the JSON object in ``figures``, as text: of every number beside a score verl's
    validation logs means, deviations and the best and worst of n.

    Returns:
        The finite numbers by name; empty if ``figures`` is something of the user's own.
    """
    text = report.get("figures")
    try:
        figures: Any = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        figures = None
    if not isinstance(figures, dict):
        return {}
    return {name: read_reward(value) for name, value in figures.items() if is_reward(value)}


def _group_by_grader(reward_reports: Sequence[dict]) -> dict[str, list[dict]]:
    groups: dict[str, list[dict]] = {}
    for report in reward_reports:
        if report.get("grader") is not None:
            groups.setdefault(str(report["grader"]), []).append(report)
    return dict(sorted(groups.items()))


def _compute_shares(rows: Sequence[dict], kind: str, prefix: str) -> dict[str, float]:
    counts = Counter(str(row[kind]) for row in rows if row.get(kind) is not None)
    return {f"{prefix}/{kind}/{value}": count / len(rows) for value, count in counts.items()}
