"""The plot of :mod:`benchmarks.emulated_cluster`: each mode's step, and the planner's."""

from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from verl_pipeline.number_formats import format_decimal
from verl_pipeline.outputs.files import write_text

COLOURS = {"sync": "#7570b3", "ours:drained": "#1b9e77", "ours:on_policy": "#66a61e"}
OTHER_COLOUR = "#c9c9c9"


def write_plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Write a bar of each mode's step, and a mark where the planner expects its end, as SVG."""
    bar, gap, left, width = 20, 10, 300, 520
    longest = max(row["step s"] for row in rows)
    shapes: list[str] = []
    y, profile = 10, None
    for row in rows:
        if row["profile"] != profile:
            profile = row["profile"]
            y += 24
            shapes.append(f'<text x="10" y="{y}" font-weight="bold">{escape(profile)}</text>')
            y += 10
        length = row["step s"] / longest * width
        label = f"{row['mode']}, {row['split']}"
        colour = COLOURS.get(row["mode"], OTHER_COLOUR)
        shapes.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(label)}</text>')
        shapes.append(
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar}" fill="{colour}"/>'
        )
        shapes.append(
            f'<text x="{left + length + 6:.1f}" y="{y + 14}">'
            f"{format_decimal(row['step s'], 0)} s, {escape(row['gain'])}</text>"
        )
        if "planner s" in row:
            x = left + row["planner s"] / longest * width
            shapes.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 3}" y2="{y + bar + 3}"'
                ' stroke="#d95f02" stroke-width="2"/>'
            )
        y += bar + gap
    y += 20
    shapes.append(f'<text x="{left}" y="{y}">seconds of a step; orange: the planner</text>')
    size = f'width="{left + width + 160}" height="{y + 20}"'
    write_text(
        path,
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(shapes)}</svg>\n',
    )
