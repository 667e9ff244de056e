"""Compares the modes of :mod:`benchmarks.pipeline` and makes the tables.

Invariants:
* A gain (``sync``'s time over a mode's) and ``times ours`` (a mode's time over ours) pair the steps
  of two modes that trained the same prompts in the same repeat. The interval treats the pairs as
  independent, so the medians of the repeats are shown beside it.
* ``overhead`` is the share of a cycle that is neither weight sync nor work. Work is the longer of
  sampling and training if they overlap, else both. If batches are sampled ahead, a cycle lasts from
  one submission of a batch to the next: the step without its own wait and weight sync, plus those
  of the following step.
* ``oldest weights`` is the maximum number of updates between the weights that sampled a trajectory
  and those that it was trained with.
"""

import statistics
from collections import defaultdict

from benchmarks.common import estimate_ratio, format_ratio, summarize_spread
from verl_pipeline.number_formats import format_decimal, format_percent

BASELINE = "verl sync, 50 ms poll"
OURS = "ours, staleness 1"
TABLE_HEAD = (
    "| mode | step, s | gain [95 %] | times ours [95 %] | tokens/s | sampling | training | wait | "
    "weight sync | other | overhead | stolen | oldest weights | mixed versions | steps (medians of "
    "repeats) |"
)


def make_rows(report: dict, workload: str) -> list[dict]:
    """Return one row per mode, in the order in which the modes ran."""
    by_mode: dict[str, dict[tuple[int, int], dict]] = defaultdict(dict)
    ahead: dict[str, int] = {}
    for run in report["runs"]:
        ahead[run["mode"]] = run["ahead"]
        mode_steps = {
            (run["repeat"], step["step"]): step
            for step in run["steps"]
            if step["workload"] == workload
        }
        by_mode[run["mode"]].update(mode_steps)
    return [
        _summarize_mode(mode, steps, ahead[mode])
        | {
            "gain": _compare_steps(by_mode.get(BASELINE, {}), steps),
            "times ours": _compare_steps(steps, by_mode.get(OURS, {})),
        }
        for mode, steps in by_mode.items()
    ]


def _summarize_mode(mode: str, steps: dict[tuple[int, int], dict], ahead: int) -> dict:
    all_steps = list(steps.values())
    spread = summarize_spread([step["seconds"] for step in all_steps])
    phases = {
        name: statistics.fmean(step["phases"][name] for step in all_steps)
        for name in all_steps[0]["phases"]
    }
    training = statistics.fmean(map(_sum_training, all_steps))
    sampling = statistics.fmean(step["sampling_s"] for step in all_steps)
    versions = [pair for step in all_steps for pair in step["versions"] if None not in pair]
    ages = [
        step["step"] - 1 - low
        for step in all_steps
        for low, _high in step["versions"]
        if low is not None
    ]
    repeats = sorted({repeat for repeat, _step in steps})
    medians = [
        statistics.median(s["seconds"] for (n, _step), s in steps.items() if n == repeat)
        for repeat in repeats
    ]
    return {
        "mode": mode,
        "step s": statistics.fmean(step["seconds"] for step in all_steps),
        "min": spread["min"],
        "max": spread["max"],
        "steps": spread["n"],
        "medians of repeats": "  ".join(format_decimal(value) for value in medians),
        "tokens/s": sum(step["tokens"] for step in all_steps)
        / sum(step["seconds"] for step in all_steps),
        "stolen": statistics.fmean(step["stolen_s"] for step in all_steps),
        "sampling": sampling,
        "training": training,
        **phases,
        "overhead": _compute_overhead(steps, ahead),
        "mixed versions": (
            sum(low != high for low, high in versions) / len(versions) if versions else None
        ),
        "oldest version": max(ages) if ages else None,
    }


def _sum_training(step: dict) -> float:
    return sum(step["phases"][name] for name in ("log-probs", "advantage", "update"))


def _compute_overhead(steps: dict[tuple[int, int], dict], ahead: int) -> float | None:
    """Return the overhead as a share of all cycles.

    Returns None if batches are sampled ahead and no two successive steps were measured, or if a
    batch was sampled over more than one cycle.
    """
    total = overhead = 0.0
    for (repeat, number), step in steps.items():
        phases = step["phases"]
        if not ahead:
            total += step["seconds"]
            overhead += (
                step["seconds"] - step["sampling_s"] - _sum_training(step) - phases["weight sync"]
            )
        elif (following := steps.get((repeat, number + 1))) is not None:
            sync = following["phases"]["weight sync"]
            cycle = (
                step["seconds"]
                - phases["wait"]
                - phases["weight sync"]
                + following["phases"]["wait"]
                + sync
            )
            if step["sampling_s"] > cycle:
                return None
            total += cycle
            overhead += cycle - max(step["sampling_s"], _sum_training(step)) - sync
    return overhead / total if total else None


def _compare_steps(
    upper: dict[tuple[int, int], dict], lower: dict[tuple[int, int], dict]
) -> dict[str, float | None] | None:
    """Return the ratio of two modes' step times over their common steps; None without any."""
    common = sorted(upper.keys() & lower.keys())
    if not common:
        return None
    if upper is lower:
        return {"ratio": 1.0, "low": None, "high": None}
    return estimate_ratio(
        *([steps[key]["seconds"] for key in common] for steps in (upper, lower)), paired=True
    )


def make_markdown(report: dict) -> str:
    """Return the tables of ``docs/benchmarks/trainer-modes-results.md``.

    Everything but the ratios and the repeats' medians is a mean, so that the phases of a row add up
    to its step, as in the plot.
    """
    lines: list[str] = []
    for workload in report["workloads"]:
        lines += [f"**{workload['name']}**, {workload['tokens']} response tokens per batch:", ""]
        lines += [TABLE_HEAD, "|" + "---|" * (TABLE_HEAD.count("|") - 1)]
        for row in make_rows(report, workload["name"]):
            seconds = [format_decimal(row[key]) for key in ("sampling", "training", "wait")]
            small = [format_decimal(row[key], 2) for key in ("weight sync", "other")]
            mixed = (
                "-" if row["mixed versions"] is None else format_percent(row["mixed versions"], 0)
            )
            mean, low, high = (format_decimal(row[key]) for key in ("step s", "min", "max"))
            step = f"{mean} ({low} to {high})"
            repeats = f"{row['steps']} ({row['medians of repeats']})"
            ratios = [
                format_ratio(row[name]) if row[name] else "" for name in ("gain", "times ours")
            ]
            cells = [
                row["mode"],
                step,
                *ratios,
                format_decimal(row["tokens/s"]),
                *seconds,
                *small,
            ]
            overhead = "-" if row["overhead"] is None else format_percent(row["overhead"])
            oldest = "-" if row["oldest version"] is None else str(row["oldest version"])
            cells += [overhead, format_decimal(row["stolen"]), oldest, mixed, repeats]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
        for mode in _list_uneven_modes(report, workload):
            lines += [f"{mode}: steps of other work than a batch's; compare tokens/s only.", ""]
    return "\n".join(lines)


def _list_uneven_modes(report: dict, workload: dict) -> list[str]:
    """Modes with a step that did not train as many tokens as a batch of the workload has."""
    return sorted(
        {
            run["mode"]
            for run in report["runs"]
            for step in run["steps"]
            if step["workload"] == workload["name"] and step["tokens"] != workload["tokens"]
        }
    )
