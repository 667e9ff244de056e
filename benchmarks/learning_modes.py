"""What a mode costs in learning: the quickstart's model at equal trajectories in each mode.

``python -m benchmarks.learning_modes [--seeds 3] [--updates 8] [--most-runs N] [--output FILE]``,
from the repository's folder; a run takes about 5 minutes on two cores.

Seed by seed, the quickstart's training runs in each of :data:`MODES`. The first mode of a seed also
samples the held-out problems before its training: the mean of these over all seeds is what every
gain is measured from.

Invariants:
* All modes train the same batches in the same order, from the same weights, with the same
  off-policy correction (``correction=auto``: token-level, truncated). A seed changes the order of
  the data and the sampling.
* The report is written after every run, and the same command goes on where it stopped. Runs of a
  mode that has no partner in another mode are in the report, but in no comparison.
"""

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common import ReportOption, print_table, read_versions, write_report
from benchmarks.heldout_runs import average_by_problem, average_over_runs, read_earlier_runs
from verl_pipeline.evaluation.estimators import Interval, estimate_difference, estimate_mean
from verl_pipeline.number_formats import format_interval
from verl_pipeline.quickstart.__main__ import DIFFICULTIES, make_overrides
from verl_pipeline.quickstart.model import prepare_model
from verl_pipeline.quickstart.problems import load_problems, write_parquet
from verl_pipeline.testing import runs
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY
from verl_pipeline.trainer.schedule import DRAINED, IN_FLIGHT, ROLLING, Dial

MODES = (Dial(DRAINED, 1), Dial(ROLLING, 2), Dial(IN_FLIGHT, 2), Dial(IN_FLIGHT, 4))
RUN_TIMEOUT_S = 1800.0
# Of a step, kept in the report. The diagnostics compare the trainer's weights before the update
# with those that sampled.
KEPT = (
    "pipeline/staleness",
    "pipeline/mixed_share",
    "pipeline/correction/",
    "rollout_corr/",
    "critic/score/mean",
    "actor/grad_norm",
    "actor/entropy",
    "response_length/mean",
)
# In the table, as means over a run's updates.
SHOWN = {
    "age": "pipeline/staleness",
    "KL": "rollout_corr/k3_kl",
    "effective": "rollout_corr/rollout_is_eff_sample_size",
    "truncated": "rollout_corr/rollout_is_ratio_fraction_high",
}
# Chosen by `choose_overrides` in place of the quickstart's own.
REPLACED = (
    f"{PIPELINE_KEY}.correction=",
    "algorithm.rollout_correction.bypass_mode=",
    "data.seed=",
    "trainer.val_before_train=",
    "trainer.logger=",
)


@dataclass(frozen=True)
class LearningRun:
    """One training.

    Attributes:
        mode, staleness: of ``trainer.v1.one_off_pipeline``.
        before, after: mean score by held-out problem; None if it was not sampled.
        steps: by update, the metrics that begin with one of :data:`KEPT`.
        seconds: from the command to its end.
        commit: of the code that ran.
    """

    mode: str
    staleness: int
    seed: int
    before: dict[str, float] | None
    after: dict[str, float]
    steps: dict[str, dict[str, float]]
    seconds: float
    commit: str

    @property
    def dial(self) -> Dial:
        """Mode and staleness."""
        return Dial(self.mode, self.staleness)


def choose_overrides(folder: Path, model: Path, dial: Dial, seed: int, updates: int) -> list[str]:
    """Overrides of one training below ``folder``, which has its data in ``data``."""
    settings = [
        word
        for word in make_overrides(model, folder / "data", folder, updates)
        if not word.startswith(REPLACED)
    ]
    return [
        *settings,
        f"{PIPELINE_KEY}.weight_sync_mode={dial.mode}",
        f"{PIPELINE_KEY}.staleness={dial.staleness}",
        f"data.seed={seed}",
        f"actor_rollout_ref.rollout.seed={seed}",
        f"trainer.val_before_train={dial == MODES[0]}",
    ]


def train(model: Path, dial: Dial, seed: int, updates: int) -> LearningRun:
    """Run one training.

    Raises:
        RuntimeError: it failed, or an update is missing; the message has the end of its log.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="learning-") as name:
        folder = Path(name)
        write_parquet(
            folder / "data",
            [problem for problem in load_problems() if problem.difficulty in DIFFICULTIES],
        )
        overrides = choose_overrides(folder, model, dial, seed, updates)
        run = runs.run_training(folder / "training", overrides, timeout_s=RUN_TIMEOUT_S)
        if run.returncode or not {*range(1, updates + 1)} <= run.metrics.keys():
            raise RuntimeError(f"{dial} exited with {run.returncode}: {run.output[-2000:]}")
        scores = {
            step: average_by_problem(folder / "heldout" / f"{step}.jsonl")
            for step in (0, updates)
            if step or dial == MODES[0]
        }
    steps = {
        str(step): {key: value for key, value in run.metrics[step].items() if key.startswith(KEPT)}
        for step in range(1, updates + 1)
    }
    seconds = time.monotonic() - started
    commit = read_versions().get("commit", "unknown")
    return LearningRun(
        dial.mode, dial.staleness, seed, scores.get(0), scores[updates], steps, seconds, commit
    )


def compare_modes(measured: Sequence[LearningRun]) -> list[dict[str, Any]]:
    """One row a mode, over the seeds that every mode has run.

    Returns:
        ``mode``; ``seeds``; ``gain`` over the untrained model and ``against_first`` mode, paired by
        problem (95 % intervals over problems); ``gain_by_seed``, and its mean with an interval
        ``gain_over_seeds``; the means of :data:`SHOWN`. Empty if there is no such seed.
    """
    by_mode = {dial: {run.seed: run for run in measured if run.dial == dial} for dial in MODES}
    seeds = sorted(set.intersection(*(set(found) for found in by_mode.values())))
    if not seeds:
        return []
    before = average_over_runs([run.before for run in measured if run.before is not None])
    first = average_over_runs([by_mode[MODES[0]][seed].after for seed in seeds])
    rows = []
    for dial in MODES:
        chosen = [by_mode[dial][seed] for seed in seeds]
        after = average_over_runs([run.after for run in chosen])
        gains = [statistics.fmean(run.after[key] - before[key] for key in before) for run in chosen]
        row: dict[str, Any] = {
            "mode": f"{dial.mode}, staleness {dial.staleness}",
            "seeds": len(seeds),
            "gain": estimate_difference(before, after),
            "gain_by_seed": gains,
            "gain_over_seeds": estimate_mean(gains),
        }
        if dial != MODES[0]:
            row["against_first"] = estimate_difference(first, after)
        for name, metric in SHOWN.items():
            row[name] = statistics.fmean(
                step[metric] for run in chosen for step in run.steps.values()
            )
        rows.append(row)
    return rows


def _list_missing(measured: Sequence[LearningRun], seeds: int) -> list[tuple[int, Dial]]:
    done = {(run.seed, run.dial) for run in measured}
    wanted = [(seed, dial) for seed in range(1, seeds + 1) for dial in MODES]
    return [entry for entry in wanted if entry not in done]


def _show(rows: Sequence[Mapping[str, Any]]) -> None:
    def show(interval: Interval | None) -> str | None:
        if interval is None:
            return None
        return format_interval(interval.value, interval.low, interval.high, 3, sign=True)

    intervals = ("gain", "gain_over_seeds", "against_first")
    print_table(
        [{**row, **{name: show(row.get(name)) for name in intervals}} for row in rows],
        ["mode", "seeds", *intervals, *SHOWN],
    )


def main(
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each mode.")] = 3,
    updates: Annotated[int, typer.Option(min=1, help="Updates of each training.")] = 8,
    most_runs: Annotated[
        int | None, typer.Option(min=1, help="Trainings of this call; by default all.")
    ] = None,
    output: ReportOption = Path("benchmarks/results/learning.json"),
) -> None:
    """Run what is missing, print the table, and write the report after every run."""
    model, arguments = prepare_model(), {"updates": updates}
    measured = [LearningRun(**run) for run in read_earlier_runs(output, arguments)]
    for seed, dial in _list_missing(measured, seeds)[:most_runs]:
        measured.append(train(model, dial, seed, updates))
        rows = compare_modes(measured)
        results = {
            "modes": [
                {key: asdict(v) if isinstance(v, Interval) else v for key, v in row.items()}
                for row in rows
            ],
            "runs": [asdict(run) for run in measured],
        }
        write_report(output, "learning_modes", arguments, results)
    _show(compare_modes(measured))


if __name__ == "__main__":
    typer.run(main)
