"""Plots the phases of each mode as SVG, for :mod:`benchmarks.pipeline`."""

from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.pipeline_report import make_rows
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.outputs.files import write_text

COLOURS = {
    "wait": "#c9c9c9",
    "weight sync": "#d95f02",
    "log-probs": "#7570b3",
    "advantage": "#66a61e",
    "update": "#1b9e77",
    "other": "#666666",
}


def write_plot(report: dict, path: Path) -> None:
    """Write stacked bars of each mode's mean phases; a line under each bar is the sampling time."""
    bar, gap, left, width = 22, 14, 210, 620
    groups = [
        (workload["name"], make_rows(report, workload["name"])) for workload in report["workloads"]
    ]
    longest = max(row["step s"] for _name, mode_rows in groups for row in mode_rows)
    scale = width / longest
    shapes: list[str] = []
    y = 30
    for name, mode_rows in groups:
        shapes.append(f'<text x="{left}" y="{y}" font-weight="bold">{escape(name)}</text>')
        y += 10
        for row in mode_rows:
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
            shapes.append(
                f'<text x="{x + 6:.1f}" y="{y + 15}">{format_decimal(row["step s"])} s</text>'
            )
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
    write_text(
        path,
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{background}\n{body}\n</svg>\n',
    )
