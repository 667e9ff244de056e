"""The report of a demonstration: truncated share and score of each stage, with intervals.

Invariants:
* Intervals of held-out numbers are clustered by problem, those of training by step, because neither
  the samples of one problem nor the groups of one batch are independent of each other.
* A gain is paired: it compares the same problems before and after training.
* Every share is accompanied by its number of samples and problems, every score by its caveats.
"""

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.caveats import read_caveats, sort_caveats
from verl_pipeline.evaluation.comparison import compare_folders
from verl_pipeline.evaluation.estimators import estimate_proportion
from verl_pipeline.evaluation.recorded_files import read_records
from verl_pipeline.evaluation.results import read_results
from verl_pipeline.number_formats import format_decimal, format_gain, format_score
from verl_pipeline.outputs.files import write_json, write_text

TASK = "parquet"
REPORT_VERSION = 1


def build_stage_rows(
    folder: Path, limits: dict[str, int], base: Path, evaluations: dict[str, Path]
) -> list[dict[str, Any]]:
    """Return one row per stage of a training.

    Args:
        folder: folder of the training.
        limits: maximum length of a response in each stage, in tokens.
        base: evaluation before training.
        evaluations: evaluation of the last checkpoint of each stage.
    """
    return [
        {
            "stage": stage,
            "limit": limits[stage],
            "training": summarize_training(folder / stage / "metrics.jsonl"),
            "held_out": summarize_evaluation(evaluation, limits[stage]),
            "gain": compute_gain(base, evaluation),
            "evaluation": str(evaluation),
        }
        for stage, evaluation in evaluations.items()
    ]


def summarize_training(metrics: Path) -> dict[str, Any]:
    """Summarize, over the steps of a stage, the trajectories before and after the filters."""
    steps = [
        record["data"]
        for record in read_records(metrics)
        if "filters/before/trajectories" in record["data"]
    ]
    counts_before = [step["filters/before/trajectories"] for step in steps]
    counts_after = [step["filters/after/trajectories"] for step in steps]
    mean_count = statistics.fmean(counts_before)
    truncated_shares = [step["filters/before/truncated_share"] for step in steps]
    rewards = [step["filters/before/reward_mean"] for step in steps]
    return {
        "steps": len(steps),
        "trajectories": int(sum(counts_before)),
        "trained_on": int(sum(counts_after)),
        "skipped_updates": int(sum(step["filters/skipped_update"] for step in steps)),
        "truncated": estimate_proportion(truncated_shares, mean_count).as_dict(),
        "reward": estimate_proportion(rewards, mean_count).as_dict(),
    }


def summarize_evaluation(evaluation: Path, limit: int) -> dict[str, Any]:
    """Return the score of an evaluation, and the share of its samples beyond a limit.

    Args:
        evaluation: folder of the evaluation.
        limit: length in tokens. Truncated samples count as longer.
    """
    (task,) = [task for task in read_results(evaluation)["tasks"] if task["task"] == TASK]
    is_longer: dict[str, list[float]] = defaultdict(list)
    for row in read_records(evaluation / TASK / "samples.jsonl"):
        is_longer[row["id"]].append(float(row["tokens"] > limit or row["finish"] == "length"))
    shares = [statistics.fmean(values) for values in is_longer.values()]
    n = task["sampling"]["n"]
    return {
        "problems": len(is_longer),
        "samples": task["counts"]["samples"],
        "failed": task["counts"]["failed"] + task["counts"]["infrastructure"],
        "pass@1": task["pass@1"],
        "beyond_limit": estimate_proportion(shares, n).as_dict(),
        "mean_tokens": task["lengths"]["mean"],
        "max_tokens": task["sampling"]["max_tokens"],
        "caveats": task["caveats"],
    }


def compute_gain(before: Path, after: Path) -> dict[str, Any]:
    """Return the paired gain in pass@1 from one evaluation to another."""
    (row,) = compare_folders(before, after)
    keys = ("value", "low", "high", "better", "worse", "problems", "notes", "not_comparable")
    return {key: row[key] for key in keys}


def write_demo_report(
    output: Path, base: Path, arms: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Write ``report.json`` and ``report.md``; return the content of ``report.json``.

    Args:
        output: folder of the demonstration.
        base: evaluation before training.
        arms: :func:`build_stage_rows` of each training. The first one is compared with each of the
            others.
    """
    longest = max(row["limit"] for rows in arms.values() for row in rows)
    first, *others = arms
    report = {
        "version": REPORT_VERSION,
        "data": json.loads((output / "data" / "report.json").read_text())["outputs"],
        "base": summarize_evaluation(base, longest),
        "arms": arms,
        "between": [_compare_arms(first, other, arms) for other in others],
    }
    write_json(output / "report.json", report)
    write_text(output / "report.md", render_markdown(report))
    return report


def _compare_arms(first: str, other: str, arms: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the gain of ``first`` over ``other`` after the last stage."""
    first_row, other_row = arms[first][-1], arms[other][-1]
    gain = compute_gain(Path(other_row["evaluation"]), Path(first_row["evaluation"]))
    return {"arm": first, "over": other, "stage": first_row["stage"], **gain}


def render_markdown(report: dict[str, Any]) -> str:
    """Render the report as Markdown."""
    base = report["base"]
    mean_tokens = format_decimal(base["mean_tokens"], 0)
    lines = [
        "# The DeepCoder recipe, scaled down",
        "",
        (
            f"Each evaluation has {base['samples']} samples of {base['problems']} held-out "
            f"problems, with up to {base['max_tokens']} tokens, prompted as in training. Intervals "
            "are 95 %, clustered by problem (held out) or by step (training)."
        ),
        "",
        (
            f"Before training: pass@1 {format_score(base['pass@1'])}, truncated "
            f"{format_score(base['beyond_limit'])}, {mean_tokens} tokens on average."
        ),
    ]
    header = (
        "stage",
        "limit",
        "training: steps, trajectories before and after the filters",
        "truncated in training",
        "reward in training",
        "held out: longer than the stage's limit",
        "held out: pass@1",
        "paired gain over before training",
    )
    for arm, rows in report["arms"].items():
        lines += ["", f"## {arm}", "", f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
        lines += map(_render_row, rows)
    for entry in report["between"]:
        lines += [
            "",
            (
                f"After stage {entry['stage']}, {entry['arm']} over {entry['over']}: "
                f"{format_gain(entry)} ({entry['better']} problems better, {entry['worse']} "
                f"worse, of {entry['problems']})."
            ),
        ]
    return "\n".join([*lines, *_list_caveats(report), ""])


def _list_caveats(report: dict[str, Any]) -> list[str]:
    """Return lines with the caveats of all scores and gains."""
    evaluations = {"before training": report["base"]}
    gains = {f"{entry['arm']} over {entry['over']}": entry for entry in report["between"]}
    for arm, rows in report["arms"].items():
        for row in rows:
            evaluations[f"{arm}, {row['stage']}"] = row["held_out"]
            gains[f"gain of {arm}, {row['stage']}"] = row["gain"]
    found = [
        f"* {name}: {caveat.text}"
        for name, evaluation in evaluations.items()
        for caveat in sort_caveats(read_caveats(evaluation))
    ]
    found += [
        f"* {name}: {text}"
        for name, gain in gains.items()
        for text in (*(f"NOT COMPARABLE: {one}" for one in gain["not_comparable"]), *gain["notes"])
    ]
    return ["", "## Caveats", "", *found] if found else []


def _render_row(row: dict[str, Any]) -> str:
    training, held_out = row["training"], row["held_out"]
    counts = f"{training['steps']}, {training['trajectories']}, {training['trained_on']}"
    if training["skipped_updates"]:
        counts += f", {training['skipped_updates']} updates skipped"
    cells = (
        row["stage"],
        str(row["limit"]),
        counts,
        format_score(training["truncated"]),
        format_score(training["reward"]),
        format_score(held_out["beyond_limit"]),
        format_score(held_out["pass@1"]),
        format_gain(row["gain"]),
    )
    return f"| {' | '.join(cells)} |"
