"""From spans and metrics of runs to the numbers, the tables and the plot of :mod:`benchmarks.pipeline`.

Invariants:
* The phases of a step add up to its wall-clock time; what has no name is ``other``.
* A figure of a mode is taken over the measured steps of all its repeats; an interval treats these as independent, so
  the repeats' own medians are shown beside it.
"""

import statistics
from collections import defaultdict
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.common import geometric_ratio, median_spread, table
from benchmarks.modes import Mode
from benchmarks.workload import Workload

BASELINE = "verl sync, 50 ms poll"
# verl's timers, by what they mean here. `gen` is sampling itself in sync, and waiting for it elsewhere.
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


def summarise(mode: Mode, repeat: int, run: dict, workloads: tuple[Workload, ...], batches: int) -> dict:
    """The measured steps of one run, and how its trajectories were sampled."""
    ends = [span["start"] + span["seconds"] for span in run["spans"] if span["name"] == "step ends"]
    sampled = _sampling(run["spans"], len(workloads[0].lengths), mode.labels_ahead)
    steps: list[dict] = []
    for place, workload in enumerate(workloads):
        for step in range(place * batches + 2, (place + 1) * batches):
            seconds = ends[step - 1] - ends[step - 2]
            phases = _phases(run["metrics"][step])
            steps.append(
                {
                    "workload": workload.name,
                    "step": step,
                    "seconds": seconds,
                    "phases": {**phases, "other": seconds - sum(phases.values())},
                    **sampled[step],
                }
            )
    return {
        "mode": mode.name,
        "repeat": repeat,
        "pools": mode.pools,
        "poll_s": mode.poll_s,
        "startup_s": ends[0] - run["start"],
        "steps": steps,
    }


def _phases(metrics: dict[str, float]) -> dict[str, float]:
    return {name: sum(metrics.get(f"timing_s/{timer}", 0.0) for timer in timers) for name, timers in PHASES.items()}


def _sampling(spans: list[dict], prompts: int, labels_ahead: int) -> dict[int, dict]:
    """By batch: seconds of sampling (rewards included), and the weight versions of its trajectories."""
    generated: dict[int, list[dict]] = defaultdict(list)
    rewarded: dict[int, list[float]] = defaultdict(list)
    for span in spans:
        if span["name"] == "generate":
            generated[span["row"] // prompts + 1].append(span)
        elif span["name"] == "reward":
            rewarded[span["row"] // prompts + 1].append(span["start"] + span["seconds"])
    return {
        batch: {
            "sampling_s": max(rewarded[batch]) - min(span["start"] for span in found),
            "generating_s": max(span["start"] + span["seconds"] for span in found) - min(s["start"] for s in found),
            "trajectories": len(found),
            "tokens": sum(span["tokens"] for span in found),
            "cut_short": sum(span["tokens"] < span["asked"] for span in found),
            "versions": [[v if v is None else v - labels_ahead for v in span["versions"]] for span in found],
        }
        for batch, found in generated.items()
    }


def rows(report: dict, workload: str) -> list[dict]:
    """One row for each mode, in the order they ran."""
    by_mode: dict[str, list[dict]] = defaultdict(list)
    medians: dict[str, list[float]] = defaultdict(list)
    for run in report["runs"]:
        steps = [step for step in run["steps"] if step["workload"] == workload]
        by_mode[run["mode"]] += steps
        medians[run["mode"]].append(statistics.median(step["seconds"] for step in steps))
    baseline = [step["seconds"] for step in by_mode.get(BASELINE, [])]
    return [_row(mode, steps, medians[mode], baseline) for mode, steps in by_mode.items()]


def _row(mode: str, steps: list[dict], medians: list[float], baseline: list[float]) -> dict:
    seconds = [step["seconds"] for step in steps]
    spread = median_spread(seconds)
    phases = {name: statistics.median(step["phases"][name] for step in steps) for name in steps[0]["phases"]}
    training = sum(phases[name] for name in ("log-probs", "advantage", "update"))
    sampling = statistics.median(step["sampling_s"] for step in steps)
    unexplained = spread["median"] - max(sampling, training) - phases["weight sync"]
    gain = geometric_ratio(baseline, seconds) if baseline else None
    spans = [versions for step in steps for versions in step["versions"] if None not in versions]
    ages = [step["step"] - 1 - low for step in steps for low, _high in step["versions"] if low is not None]
    return {
        "mode": mode,
        "step s": spread["median"],
        "min": spread["min"],
        "max": spread["max"],
        "steps": spread["n"],
        "medians of repeats": "  ".join(f"{value:.1f}" for value in medians),
        "gain": gain and gain["ratio"],
        "low": gain and gain["low"],
        "high": gain and gain["high"],
        "tokens/s": statistics.median(step["tokens"] / step["seconds"] for step in steps),
        "sampling": sampling,
        "training": training,
        **phases,
        # What is left of a step when the slower pool and the weight sync are taken away.
        "overhead": unexplained / spread["median"],
        "mixed versions": sum(low != high for low, high in spans) / len(spans) if spans else None,
        "oldest version": max(ages) if ages else None,
        "cut short": sum(step["cut_short"] for step in steps),
    }


def print_tables(report: dict) -> None:
    """Two tables a workload: what a mode gains, and where its step goes (medians, seconds)."""
    for workload in report["workloads"]:
        found = rows(report, workload["name"])
        print(f"\n{workload['name']}: {workload['tokens']} response tokens a batch; seconds are medians")
        table(found, ["mode", "step s", "min", "max", "steps", "medians of repeats", "gain", "low", "high", "tokens/s"])
        phases = ["mode", "sampling", "training", "wait", "weight sync", "log-probs", "update", "other", "overhead"]
        table(found, [*phases, "mixed versions", "oldest version", "cut short"])


def write_plot(report: dict, path: Path) -> None:
    """Stacked bars as SVG: a mode's median phases; a line under each bar says how long sampling took."""
    bar, gap, left, width = 22, 14, 210, 620
    groups = [(workload["name"], rows(report, workload["name"])) for workload in report["workloads"]]
    longest = max(row["step s"] for _name, found in groups for row in found)
    scale = width / longest
    shapes: list[str] = []
    y = 30
    for name, found in groups:
        shapes.append(f'<text x="{left}" y="{y}" font-weight="bold">{escape(name)}</text>')
        y += 10
        for row in found:
            x = float(left)
            shapes.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(row["mode"])}</text>')
            for phase, colour in COLOURS.items():
                length = max(row[phase], 0.0) * scale
                shapes.append(f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{bar}" fill="{colour}"/>')
                x += length
            shapes.append(f'<text x="{x + 6:.1f}" y="{y + 15}">{row["step s"]:.1f} s</text>')
            line = f'x1="{left}" y1="{y + bar + 3}" x2="{left + row["sampling"] * scale:.1f}" y2="{y + bar + 3}"'
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
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{background}\n{body}\n</svg>\n')
