"""The report of a scaled-down run: truncated share and score of each stage, with intervals.

Invariants:
* Intervals of held-out numbers are clustered by problem, those of training by step: neither samples
  of one problem nor the groups of one batch are independent of each other.
* A gain is paired: the same problems before and after.
* Numbers of samples and problems stand beside every share.
"""

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.compare import compare_folders
from verl_pipeline.evaluation.estimators import proportion_interval
from verl_pipeline.evaluation.results import read_results
from verl_pipeline.evaluation.store import read_lines, write_json, write_text

TASK = "parquet"
VERSION = 1


def rows_of(
    folder: Path, limits: dict[str, int], base: Path, evaluations: dict[str, Path]
) -> list[dict[str, Any]]:
    """A row a stage of the training in ``folder``.

    Args:
        limits: longest response of each stage, tokens.
        base: evaluation before training.
        evaluations: of the end of each stage.
    """
    return [
        {
            "stage": stage,
            "limit": limits[stage],
            "training": training(folder / stage / "metrics.jsonl"),
            "held_out": held_out(evaluation, limits[stage]),
            "gain": gain(base, evaluation),
            "evaluation": str(evaluation),
        }
        for stage, evaluation in evaluations.items()
    ]


def training(metrics: Path) -> dict[str, Any]:
    """What the filters saw and left, over the steps of a stage."""
    steps = [
        record["data"]
        for record in read_lines(metrics)
        if "filters/before/trajectories" in record["data"]
    ]
    counts = [step["filters/before/trajectories"] for step in steps]
    left = [step["filters/after/trajectories"] for step in steps]
    each = statistics.fmean(counts)
    shares = [step["filters/before/truncated_share"] for step in steps]
    return {
        "steps": len(steps),
        "trajectories": int(sum(counts)),
        "trained_on": int(sum(left)),
        "skipped_updates": int(sum(step["filters/skipped_update"] for step in steps)),
        "truncated": proportion_interval(shares, each).as_dict(),
        "reward": (
            proportion_interval(
                [step["filters/before/reward_mean"] for step in steps], each
            ).as_dict()
        ),
    }


def held_out(evaluation: Path, limit: int) -> dict[str, Any]:
    """Score of an evaluation, and the share of its samples that are longer than ``limit`` tokens or
    were cut off.
    """
    (task,) = [task for task in read_results(evaluation)["tasks"] if task["task"] == TASK]
    long: dict[str, list[float]] = defaultdict(list)
    for row in read_lines(evaluation / TASK / "samples.jsonl"):
        long[row["id"]].append(float(row["tokens"] > limit or row["finish"] == "length"))
    n = task["sampling"]["n"]
    return {
        "problems": len(long),
        "samples": task["counts"]["samples"],
        "failed": task["counts"]["failed"] + task["counts"]["infrastructure"],
        "pass@1": task["pass@1"],
        "beyond_limit": (
            proportion_interval([statistics.fmean(values) for values in long.values()], n).as_dict()
        ),
        "mean_tokens": task["lengths"]["mean"],
        "max_tokens": task["sampling"]["max_tokens"],
    }


def gain(before: Path, after: Path) -> dict[str, Any]:
    """Paired gain in pass@1 of one evaluation over another."""
    (row,) = compare_folders(before, after)
    return {
        key: row[key] for key in ("value", "low", "high", "better", "worse", "problems", "notes")
    }


def write_report(output: Path, base: Path, arms: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Write ``report.json`` and ``report.md``; the first's content.

    Args:
        arms: :func:`rows_of` each training; from the second on they are compared with the first.
    """
    longest = max(row["limit"] for rows in arms.values() for row in rows)
    first, *others = arms
    report = {
        "version": VERSION,
        "data": json.loads((output / "data" / "report.json").read_text())["outputs"],
        "base": held_out(base, longest),
        "arms": arms,
        "between": [_between(first, other, arms) for other in others],
    }
    write_json(output / "report.json", report)
    write_text(output / "report.md", markdown(report))
    return report


def _between(first: str, other: str, arms: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The last stage of ``first`` over that of ``other``."""
    last, before = arms[first][-1], arms[other][-1]
    paired = gain(Path(before["evaluation"]), Path(last["evaluation"]))
    return {"arm": first, "over": other, "stage": last["stage"], **paired}


def markdown(report: dict[str, Any]) -> str:
    """The report as text."""
    base = report["base"]
    lines = [
        "# DeepCoder's recipe, scaled down",
        "",
        (
            f"Held out: {base['problems']} problems, {base['samples']} samples each time, up to "
            f"{base['max_tokens']} tokens, asked as in training. Intervals are 95 %, clustered by "
            "problem (held out) or by step (training)."
        ),
        "",
        (
            f"Before training: pass@1 {_share(base['pass@1'])}, cut off "
            f"{_share(base['beyond_limit'])}, {base['mean_tokens']:.0f} tokens on average."
        ),
    ]
    for arm, rows in report["arms"].items():
        lines += [
            "",
            f"## {arm}",
            "",
            (
                "| stage | limit | training: steps, trajectories, trained on | cut off in training "
                "| reward in training | held out: beyond the stage's limit | held out: pass@1 | "
                "gain over before, paired |"
            ),
            "|---|---|---|---|---|---|---|---|",
            *map(_row, rows),
        ]
    for entry in report["between"]:
        lines += [
            "",
            (
                f"After stage {entry['stage']}, {entry['arm']} over {entry['over']}: "
                f"{_points(entry)} ({entry['better']} problems better, {entry['worse']} worse, of "
                f"{entry['problems']})."
            ),
        ]
    return "\n".join([*lines, ""])


def _row(row: dict[str, Any]) -> str:
    trained, held = row["training"], row["held_out"]
    skipped = (
        f", {trained['skipped_updates']} updates skipped" if trained["skipped_updates"] else ""
    )
    cells = (
        row["stage"],
        str(row["limit"]),
        f"{trained['steps']}, {trained['trajectories']}, {trained['trained_on']}{skipped}",
        _share(trained["truncated"]),
        _share(trained["reward"]),
        _share(held["beyond_limit"]),
        _share(held["pass@1"]),
        _points(row["gain"]),
    )
    return f"| {' | '.join(cells)} |"


def _share(interval: dict[str, float | None]) -> str:
    return f"{interval['value']:.1%}" + _bounds(interval, 1)


def _points(interval: dict[str, Any]) -> str:
    return f"{100 * interval['value']:+.1f}" + _bounds(interval, 1, signed=True) + " points"


def _bounds(interval: dict[str, Any], digits: int, signed: bool = False) -> str:
    if interval["low"] is None:
        return ""
    sign = "+" if signed else ""
    return f" [{100 * interval['low']:{sign}.{digits}f}, {100 * interval['high']:{sign}.{digits}f}]"
