"""The quickstart's two tables.

Invariants:
* An accuracy comes with its number of samples and a 95 % interval clustered by problem: samples of
  one problem are not independent of each other.
* A pool's shares add up to the time of its steps; what has no name is called "other".
"""

import json
import math
import statistics
from collections import defaultdict
from pathlib import Path

from rich.table import Table

from verl_pipeline.evaluation.estimators import difference_interval, proportion_interval

TRAINER_PHASES = {
    "wait_rollout": "waiting for the rollout pool",
    "update_weights": "sending weights",
    "old_log_prob": "old_log_prob",
    "ref": "reference model",
    "adv": "advantage",
    "update_actor": "update",
}


def read_scores(path: Path) -> dict[str, list[float]]:
    """Scores by problem, of a file that verl dumped for a validation."""
    scores: dict[str, list[float]] = defaultdict(list)
    for line in path.read_text().splitlines():
        record = json.loads(line)
        scores[record["input"]].append(float(record["score"]))
    return dict(scores)


def accuracy_table(dumps: Path, steps: int) -> Table:
    """Held-out accuracy before and after, and the paired gain."""
    before, after = (read_scores(dumps / f"{step}.jsonl") for step in (0, steps))
    table = Table(
        title="held-out problems, avg@n at temperature 1",
        caption="95 % intervals, clustered by problem",
    )
    for column in ("", "problems", "samples", "pass rate"):
        table.add_column(column, justify="right" if column else "left")
    for name, scores in (("before", before), (f"after {steps} updates", after)):
        rate = proportion_interval(list(_means(scores).values()))
        samples = sum(len(values) for values in scores.values())
        table.add_row(
            name,
            str(len(scores)),
            str(samples),
            f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}]",
        )
    gain = difference_interval(_means(before), _means(after))
    table.add_row(
        "gain, paired",
        str(len(before)),
        "",
        f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]",
    )
    return table


def _means(scores: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.fmean(values) for name, values in scores.items()}


def pool_table(metrics: dict[int, dict[str, float]]) -> Table:
    """Where the time of each pool went, over all steps but the first, which waits for its batch,
    and the last, which samples none. Batch k+1 is sampled during step k."""
    inner = [step for step in sorted(metrics)[:-1] if step > 1]
    steps = [metrics[step] for step in inner]
    total = sum(record["timing_s/step"] for record in steps)
    table = Table(title=f"where the time went: {len(steps)} steps, median {_median(steps):.1f} s")
    for column in ("pool", "phase", "seconds", "share"):
        table.add_column(column, justify="right" if column in ("seconds", "share") else "left")
    if not total:
        return table
    spent = {
        label: sum(record.get(f"timing_s/{key}", 0.0) for record in steps)
        for key, label in TRAINER_PHASES.items()
    }
    spent["other"] = total - sum(spent.values())
    for label, seconds in spent.items():
        if seconds > 0:
            table.add_row("trainer", label, f"{seconds:.1f}", f"{seconds / total:.0%}")
    sampling = sum(metrics[step + 1].get("pipeline/rollout/generating_s", 0.0) for step in inner)
    syncing = spent[TRAINER_PHASES["update_weights"]]
    table.add_section()
    for label, seconds in (
        ("generating", sampling),
        ("receiving weights", syncing),
        ("waiting for the trainer", max(total - sampling - syncing, 0.0)),
    ):
        table.add_row("rollout", label, f"{seconds:.1f}", f"{seconds / total:.0%}")
    return table


def _median(steps: list[dict[str, float]]) -> float:
    return statistics.median(record["timing_s/step"] for record in steps) if steps else math.nan
