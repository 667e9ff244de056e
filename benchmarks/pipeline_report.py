"""From spans and metrics of runs to the numbers, the tables and the plot of
:mod:`benchmarks.pipeline`.

Invariants:
* All modes are compared on the same work: a step that trained anything else is an error.
* The phases of a step add up to its wall-clock time; what has no name is ``other``.
* A gain (``sync``'s time over a mode's; ``times ours``: a mode's over ours) pairs the steps of two
  modes that trained the same prompts in the same repeat. Its interval treats the pairs as
  independent, so the repeats' own medians are shown beside it.
* ``stolen`` is what other tenants of the machine took from a step, in processor seconds: it blurs
  every comparison.
* ``overhead`` is the share of a cycle that is neither the weight sync nor the work: the longer of
  sampling and training where they overlap, both where they do not. Where batches are sampled ahead,
  a cycle lasts from one submission of a batch to the next: the step without its own wait and weight
  sync, with those of the step behind it.
* ``oldest weights``: updates between those that sampled a trajectory and those it was trained with,
  at most.
"""

import math
import statistics
from collections import defaultdict
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.common import geometric_ratio, median_spread, ratio_text
from benchmarks.modes import Mode
from benchmarks.workload import Workload

BASELINE = "verl sync, 50 ms poll"
OURS = "ours, staleness 1"
# Batches at the start of a run that are sampled and trained, and not measured: engines get faster
# over the first ones.
WARM_UP = 1
HEAD = (
    "| mode | step, s | gain [95 %] | times ours [95 %] | tokens/s | sampling | training | wait | "
    "weight sync | other | overhead | stolen | oldest weights | mixed versions | steps (medians of "
    "repeats) |"
)
# verl's timers, by what they mean here. `gen` is sampling itself in sync, and waiting for it
# elsewhere.
PHASES = {
    "wait": ("gen", "wait_rollout"),
    "weight sync": ("update_weights",),
    "log-probs": ("old_log_prob", "ref"),
    "advantage": ("reward", "adv"),
    "update": ("update_actor", "update_critic"),
}
COLOURS = {
    "wait": "#c9c9c9",
    "weight sync": "#d95f02",
    "log-probs": "#7570b3",
    "advantage": "#66a61e",
    "update": "#1b9e77",
    "other": "#666666",
}


def summarise(
    mode: Mode, repeat: int, run: dict, workloads: tuple[Workload, ...], batches: int
) -> dict:
    """The measured steps of one run, and how its trajectories were sampled.

    Raises:
        RuntimeError: a step trained other work than its workload's: figures would compare different
            things.
    """
    marks = [span for span in run["spans"] if span["name"] == "step ends"]
    ends = [span["start"] + span["seconds"] for span in marks]
    sampled = _sampling(run["spans"], len(workloads[0].lengths), mode.labels_ahead)
    steps: list[dict] = []
    for place, workload in enumerate(workloads):
        for step in measured_steps(place, batches):
            _check(mode, step, run["metrics"][step], sampled[step], workload)
            seconds = ends[step - 1] - ends[step - 2]
            phases = _phases(run["metrics"][step])
            beside = sampled[step + mode.ahead]
            steps.append(
                {
                    "workload": workload.name,
                    "step": step,
                    "seconds": seconds,
                    "phases": {**phases, "other": seconds - sum(phases.values())},
                    "stolen_s": marks[step - 1]["stolen"] - marks[step - 2]["stolen"],
                    "sampling_s": beside["end"] - beside["start"],
                    "tokens": workload.tokens,
                    "versions": sampled[step]["versions"],
                }
            )
    return {
        "mode": mode.name,
        "repeat": repeat,
        "pools": mode.pools,
        "poll_s": mode.poll_s,
        "ahead": mode.ahead,
        "startup_s": min(batch["start"] for batch in sampled.values()) - run["start"],
        "steps": steps,
    }


def measured_steps(place: int, batches: int) -> range:
    """Steps that count, of the workload at ``place``; the run begins with :data:`WARM_UP` batches
    that do not.
    """
    first = WARM_UP + place * batches + 1
    return range(first + 1, first + batches - 1)


def _check(
    mode: Mode, step: int, metrics: dict[str, float], sampled: dict, workload: Workload
) -> None:
    trained = metrics["response_length/mean"] * workload.trajectories
    if round(trained) != workload.tokens or sampled["tokens"] != workload.tokens:
        raise RuntimeError(
            f"{mode.name}, step {step}: {trained:.0f} response tokens trained, {sampled['tokens']} "
            f"sampled; {workload.name} has {workload.tokens}"
        )


def _phases(metrics: dict[str, float]) -> dict[str, float]:
    return {
        name: sum(metrics.get(f"timing_s/{timer}", 0.0) for timer in timers)
        for name, timers in PHASES.items()
    }


def _sampling(spans: list[dict], prompts: int, labels_ahead: int) -> dict[int, dict]:
    """By batch: from the first request to the last reward (seconds since the epoch), tokens, and
    weight versions.
    """
    found: dict[int, dict] = defaultdict(
        lambda: {"start": math.inf, "end": 0.0, "tokens": 0, "versions": []}
    )
    for span in spans:
        if span["name"] in ("generate", "reward"):
            batch = found[span["row"] // prompts + 1]
            batch["start"] = min(batch["start"], span["start"])
            batch["end"] = max(batch["end"], span["start"] + span["seconds"])
        if span["name"] == "generate":
            batch["tokens"] += span["tokens"]
            batch["versions"].append(
                [v if v is None else v - labels_ahead for v in span["versions"]]
            )
    return dict(found)


def rows(report: dict, workload: str) -> list[dict]:
    """One row for each mode, in the order they ran."""
    by_mode: dict[str, dict[tuple[int, int], dict]] = defaultdict(dict)
    ahead: dict[str, int] = {}
    for run in report["runs"]:
        ahead[run["mode"]] = run["ahead"]
        found = {
            (run["repeat"], step["step"]): step
            for step in run["steps"]
            if step["workload"] == workload
        }
        by_mode[run["mode"]].update(found)
    return [
        _row(mode, steps, ahead[mode])
        | {
            "gain": _ratio(by_mode.get(BASELINE, {}), steps),
            "times ours": _ratio(steps, by_mode.get(OURS, {})),
        }
        for mode, steps in by_mode.items()
    ]


def _row(mode: str, steps: dict[tuple[int, int], dict], ahead: int) -> dict:
    found = list(steps.values())
    spread = median_spread([step["seconds"] for step in found])
    mean = statistics.fmean(step["seconds"] for step in found)
    phases = {
        name: statistics.fmean(step["phases"][name] for step in found)
        for name in found[0]["phases"]
    }
    training = statistics.fmean(map(_training, found))
    sampling = statistics.fmean(step["sampling_s"] for step in found)
    versions = [pair for step in found for pair in step["versions"] if None not in pair]
    ages = [
        step["step"] - 1 - low
        for step in found
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
        "step s": spread["median"],
        "min": spread["min"],
        "max": spread["max"],
        "steps": spread["n"],
        "medians of repeats": "  ".join(f"{value:.1f}" for value in medians),
        "tokens/s": sum(step["tokens"] for step in found) / sum(step["seconds"] for step in found),
        "mean step": mean,
        "stolen": statistics.fmean(step["stolen_s"] for step in found),
        "sampling": sampling,
        "training": training,
        **phases,
        "overhead": _overhead(steps, ahead),
        "mixed versions": (
            sum(low != high for low, high in versions) / len(versions) if versions else None
        ),
        "oldest version": max(ages) if ages else None,
    }


def _training(step: dict) -> float:
    return sum(step["phases"][name] for name in ("log-probs", "advantage", "update"))


def _overhead(steps: dict[tuple[int, int], dict], ahead: int) -> float | None:
    """Share of all cycles together; None where batches are sampled ahead and no two steps in
    succession were measured, or a batch was sampled over more than one cycle.
    """
    total = left = 0.0
    for (repeat, number), step in steps.items():
        phases = step["phases"]
        if not ahead:
            total += step["seconds"]
            left += step["seconds"] - step["sampling_s"] - _training(step) - phases["weight sync"]
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
            left += cycle - max(step["sampling_s"], _training(step)) - sync
    return left / total if total else None


def _ratio(
    upper: dict[tuple[int, int], dict], lower: dict[tuple[int, int], dict]
) -> dict[str, float | None] | None:
    """One mode's step time over another's, of the steps both have; None if there are none."""
    common = sorted(upper.keys() & lower.keys())
    if not common:
        return None
    if upper is lower:
        return {"ratio": 1.0, "low": None, "high": None}
    return geometric_ratio(
        *([steps[key]["seconds"] for key in common] for steps in (upper, lower)), paired=True
    )


def markdown(report: dict) -> str:
    """The tables as in ``docs/benchmarks.md``: medians of steps and gains, means of everything
    else.
    """
    lines: list[str] = []
    for workload in report["workloads"]:
        lines += [f"**{workload['name']}**, {workload['tokens']} response tokens a batch:", ""]
        lines += [HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
        for row in rows(report, workload["name"]):
            seconds = [f"{row[key]:.1f}" for key in ("sampling", "training", "wait")]
            small = [f"{row[key]:.2f}" for key in ("weight sync", "other")]
            mixed = "-" if row["mixed versions"] is None else f"{row['mixed versions']:.0%}"
            step = f"{row['step s']:.1f} ({row['min']:.1f} to {row['max']:.1f})"
            repeats = f"{row['steps']} ({row['medians of repeats']})"
            ratios = [ratio_text(row[name]) if row[name] else "" for name in ("gain", "times ours")]
            cells = [row["mode"], step, *ratios, f"{row['tokens/s']:.1f}", *seconds, *small]
            overhead = "-" if row["overhead"] is None else f"{row['overhead']:.1%}"
            oldest = "-" if row["oldest version"] is None else str(row["oldest version"])
            cells += [overhead, f"{row['stolen']:.1f}", oldest, mixed, repeats]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def write_plot(report: dict, path: Path) -> None:
    """Stacked bars as SVG: the means of a mode's phases; a line under each bar says how long
    sampling took.
    """
    bar, gap, left, width = 22, 14, 210, 620
    groups = [
        (workload["name"], rows(report, workload["name"])) for workload in report["workloads"]
    ]
    longest = max(row["mean step"] for _name, found in groups for row in found)
    scale = width / longest
    shapes: list[str] = []
    y = 30
    for name, found in groups:
        shapes.append(f'<text x="{left}" y="{y}" font-weight="bold">{escape(name)}</text>')
        y += 10
        for row in found:
            x = float(left)
            shapes.append(
                f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(row["mode"])}</text>'
            )
            for phase, colour in COLOURS.items():
                length = max(row[phase], 0.0) * scale
                shapes.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{bar}"'
                    f' fill="{colour}"/>'
                )
                x += length
            shapes.append(f'<text x="{x + 6:.1f}" y="{y + 15}">{row["mean step"]:.1f} s</text>')
            line = (
                f'x1="{left}" y1="{y + bar + 3}" x2="{left + row["sampling"] * scale:.1f}"'
                f' y2="{y + bar + 3}"'
            )
            shapes.append(f'<line {line} stroke="#1f78b4" stroke-width="3"/>')
            y += bar + gap
        y += 30
    x = left
    for phase, colour in {**COLOURS, "sampling and rewards": "#1f78b4"}.items():
        shapes.append(f'<rect x="{x}" y="{y - 10}" width="10" height="10" fill="{colour}"/>')
        shapes.append(f'<text x="{x + 14}" y="{y}">{phase}</text>')
        x += 30 + 7 * len(phase)
    size = f'width="{left + width + 90}" height="{y + 20}"'
    body = "\n".join(shapes)
    style = 'font-family="sans-serif" font-size="12"'
    background = '<rect width="100%" height="100%" fill="white"/>'
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{background}\n{body}\n</svg>\n'
    )
