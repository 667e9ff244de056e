"""The quickstart's two tables: held-out accuracy, and the time of each pool.

Invariants:
* Each accuracy has its number of samples and a 95 % interval clustered by problem, since samples of
  one problem are not independent.
* The shares of a pool add up to the time of its steps; unnamed time is "other".
"""

import json
import statistics
from collections import defaultdict
from pathlib import Path

from rich.table import Table

from verl_pipeline.evaluation.estimators import estimate_difference, estimate_proportion
from verl_pipeline.number_formats import format_decimal, format_interval, format_percent

UPDATE_WEIGHTS = "timing_s/update_weights"
TRAINER_PHASES = {
    "pipeline/timing_s/wait_rollout": "waiting for the rollout pool",
    UPDATE_WEIGHTS: "sending weights",
    "timing_s/old_log_prob": "old_log_prob",
    "timing_s/ref": "reference model",
    "timing_s/adv": "advantage",
    "timing_s/update_actor": "update",
}


def read_scores(path: Path) -> dict[str, list[float]]:
    """Return the scores by problem from the file that verl dumps for a validation."""
    scores: dict[str, list[float]] = defaultdict(list)
    # verl writes responses as they are; they may contain other line separators than newlines.
    for line in filter(None, path.read_text(encoding="utf-8").split("\n")):
        record = json.loads(line)
        scores[record["input"]].append(float(record["score"]))
    return dict(scores)


def make_accuracy_table(dumps: Path, steps: int) -> Table:
    """Return a table of the held-out accuracy before and after, and of the paired gain.

    Args:
        dumps: folder with verl's validation dumps ``<step>.jsonl``.
        steps: the last step.
    """
    before, after = (read_scores(dumps / f"{step}.jsonl") for step in (0, steps))
    table = Table(
        title="held-out problems, avg@n at temperature 1",
        caption="95 % intervals, clustered by problem",
    )
    for column in ("", "problems", "samples", "pass rate"):
        table.add_column(column, justify="right" if column else "left")
    for name, scores in (("before", before), (f"after {steps} updates", after)):
        rate = estimate_proportion(list(_average_by_problem(scores).values()))
        samples = sum(len(values) for values in scores.values())
        table.add_row(
            name,
            str(len(scores)),
            str(samples),
            format_interval(rate.value, rate.low, rate.high, 3),
        )
    gain = estimate_difference(_average_by_problem(before), _average_by_problem(after))
    table.add_row(
        "gain, paired",
        str(len(before)),
        "",
        format_interval(gain.value, gain.low, gain.high, 3, sign=True),
    )
    return table


def _average_by_problem(scores: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.fmean(values) for name, values in scores.items()}


def make_pool_table(metrics: dict[int, dict[str, float]]) -> Table:
    """Return a table of the time that each pool spent per phase.

    It leaves out the first step, which waits for its batch, and the last, which samples none.

    Args:
        metrics: verl's metrics by step.
    """
    inner_steps = [step for step in sorted(metrics)[:-1] if step > 1]
    steps = [metrics[step] for step in inner_steps]
    total = sum(record["timing_s/step"] for record in steps)
    table = Table(title=f"time by phase: {len(steps)} steps in {format_decimal(total)} s")
    for column in ("pool", "phase", "seconds", "share"):
        table.add_column(column, justify="right" if column in ("seconds", "share") else "left")
    if not total:
        return table
    spent_s = {
        label: sum(record.get(key, 0.0) for record in steps)
        for key, label in TRAINER_PHASES.items()
    }
    spent_s["other"] = total - sum(spent_s.values())
    for label, seconds in spent_s.items():
        if seconds > 0:
            table.add_row(
                "trainer",
                label,
                format_decimal(seconds),
                format_percent(seconds / total, 0),
            )
    # Batch k+1 is sampled during step k.
    generating_s = sum(
        metrics[step + 1].get("pipeline/batch/generating_s", 0.0) for step in inner_steps
    )
    syncing_s = spent_s[TRAINER_PHASES[UPDATE_WEIGHTS]]
    table.add_section()
    for label, seconds in (
        ("generating", generating_s),
        ("receiving weights", syncing_s),
        ("waiting for the trainer", max(total - generating_s - syncing_s, 0.0)),
    ):
        table.add_row("rollout", label, format_decimal(seconds), format_percent(seconds / total, 0))
    return table
