"""The plot of :mod:`benchmarks.emulated_cluster`: each mode's step, and the planner's."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.bar_plot import Bar, write_bars
from verl_pipeline.number_formats import format_decimal

SYNC, OURS, OTHER = "verl's sync", "ours", "verl's other modes"
COLOURS = {SYNC: "#7570b3", OURS: "#1b9e77", OTHER: "#c9c9c9"}
PLANNER = ("the planner", "#d95f02")


def write_plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Write a bar of each mode's step, and below it a line as long as the planner expects."""
    groups: dict[str, list[Bar]] = defaultdict(list)
    for row in rows:
        kind = SYNC if row["mode"] == "sync" else OURS if row["mode"].startswith("ours") else OTHER
        work = [row[name] for name in ("profile", "lengths", "slow replicas") if name in row]
        groups[", ".join(work)].append(
            Bar(
                f"{row['mode']}, {row['split']}",
                {kind: row["step s"]},
                f"{format_decimal(row['step s'], 0)} s, {row['gain']}",
                row.get("planner s"),
            )
        )
    write_bars(groups, COLOURS, PLANNER, path)
