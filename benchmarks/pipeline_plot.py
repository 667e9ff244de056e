"""Plots the phases of each mode, for :mod:`benchmarks.pipeline`."""

from pathlib import Path

from benchmarks.bar_plot import Bar, write_bars
from benchmarks.pipeline_report import make_rows
from verl_pipeline.number_formats import format_decimal

COLOURS = {
    "wait": "#c9c9c9",
    "weight sync": "#d95f02",
    "log-probs": "#7570b3",
    "advantage": "#66a61e",
    "update": "#1b9e77",
    "other": "#666666",
}
SAMPLING = ("sampling and rewards", "#1f78b4")


def write_plot(report: dict, path: Path) -> None:
    """Write stacked bars of each mode's mean phases; a line below each bar is the sampling time."""
    groups = {
        workload["name"]: [
            Bar(
                row["mode"],
                {phase: row[phase] for phase in COLOURS},
                f"{format_decimal(row['step s'])} s",
                row["sampling"],
            )
            for row in make_rows(report, workload["name"])
        ]
        for workload in report["workloads"]
    }
    write_bars(groups, COLOURS, SAMPLING, path)
