"""One complete batch between sampling and update: was it sampled as it should be, which rows train?

Invariants:
* One weight version, the one the schedule gave the batch, sampled every trajectory.
* A missing trajectory or a failed grader is counted as infrastructure, never as a reward of 0.
* Nothing here changes a batch: the caller drops rows and zeroes advantages.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from verl_pipeline.filters import BatchView
from verl_pipeline.filters.infrastructure import VERDICT as INFRASTRUCTURE
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY
from verl_pipeline.trainer.reward_value import is_reward
from verl_pipeline.trainer.schedule import oldest_allowed_version


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
    """

    keys: list[str]
    version_spans: np.ndarray
    view: BatchView
    reward_reports: list[dict]
    generated_at: float


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


def check_versions(batch: TrajectoryBatch, k: int, expected: int, staleness: int) -> None:
    """Compare each trajectory's versions with ``expected``, and that with the staleness bound.

    Args:
        expected: version that the pool held when batch k was submitted. After a validation it may
            be newer than the table of the schedule says.

    Raises:
        StalenessViolation: naming the first trajectory that differs, or the bound.
    """
    if not oldest_allowed_version(k, staleness) <= expected < k:
        raise StalenessViolation(
            f"batch {k} was submitted with v_{expected}, which violates staleness {staleness}"
        )
    for key, (first, last) in zip(batch.keys, batch.version_spans.tolist(), strict=True):
        if (first, last) != (expected, expected):
            raise StalenessViolation(
                f"batch {k}: {key} was sampled with v_{first}..v_{last}, not v_{expected}"
            )


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
            f"could not be graded: {share:.0%} is above {PIPELINE_KEY}.max_infrastructure_share="
            f"{max_share}. First failure:\n"
            f"{first}"
        )
    return {
        "pipeline/infrastructure/missing": float(report.missing),
        "pipeline/infrastructure/verdicts": float(ungraded),
        "pipeline/infrastructure/share": share,
    }


def compute_reward_metrics(reward_reports: list[dict]) -> dict[str, float]:
    """What graders that give their name (``grader``) reported of a batch.

    Returns:
        ``reward/<grader>/verdict/<verdict>`` and ``.../tier/<isolation tier>`` (shares of its
        trajectories). For each number of seconds (``..._s``), ``busy`` (programs at a time) and
        ``calibration`` (how much slower than the reference a processor was) also ``.../p50`` and
        ``.../p95``.
    """
    metrics: dict[str, float] = {}
    for grader in sorted(
        {str(report["grader"]) for report in reward_reports if "grader" in report}
    ):
        rows = [report for report in reward_reports if str(report.get("grader")) == grader]
        prefix = f"reward/{grader}"
        for kind in ("verdict", "tier"):
            for value, count in Counter(str(row[kind]) for row in rows if kind in row).items():
                metrics[f"{prefix}/{kind}/{value}"] = count / len(rows)
        for name in dict.fromkeys(name for row in rows for name in row):
            if name.endswith("_s") or name in ("busy", "calibration"):
                values = [row[name] for row in rows if is_reward(row.get(name))]
                if not values:
                    continue
                p50, p95 = np.percentile(np.array(values, dtype=float), [50, 95])
                metrics[f"{prefix}/{name}/p50"] = float(p50)
                metrics[f"{prefix}/{name}/p95"] = float(p95)
    return metrics
