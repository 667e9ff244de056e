"""The map of the gain around a profile, as heat maps: one for each reward time and number of GPUs.

Invariant: a cell's colour and number are the same gain; 1.0 is the colour in the middle.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from bokeh.models import ColumnDataSource, FixedTicker
from bokeh.plotting import figure

from verl_pipeline.number_formats import format_decimal, format_percent
from verl_pipeline.planner.gain_map import Cell, Place
from verl_pipeline.report.figures import add_hover, make_figure

# From a gain of 1 / FULL to FULL: red, pale, blue. Legible for those who see no red.
SLOWER, EVEN, FASTER = (178, 66, 43), (238, 236, 228), (33, 92, 158)
FULL = 1.9
# Text on a darker ground is white.
DARK = 140


@dataclass(frozen=True)
class MapRow:
    """Heat maps of one reward time, by rising GPUs."""

    title: str
    maps: list[tuple[str, figure]]


def draw_maps(cells: Sequence[Cell], own: Place, is_streamed: bool) -> list[MapRow]:
    """Draw the maps.

    Args:
        own: place of the profile, which the nearest map marks.
        is_streamed: whether `sync` computes rewards while it samples.
    """
    rewards = sorted({cell.place.reward_share for cell in cells})
    counts = sorted({cell.place.gpus for cell in cells})
    nearest = min(rewards, key=lambda share: abs(share - own.reward_share))
    rows = []
    for reward in rewards:
        maps = []
        for gpus in counts:
            some = [c for c in cells if (c.place.reward_share, c.place.gpus) == (reward, gpus)]
            marked = own if (reward, gpus) == (nearest, own.gpus) else None
            maps.append((f"{gpus} GPUs", _draw_map(some, marked)))
        rows.append(MapRow(_describe_reward(reward, is_streamed), maps))
    return rows


def _describe_reward(share: float, is_streamed: bool) -> str:
    if not share:
        return "Rewards take no time"
    if is_streamed:
        return f"A reward takes {format_percent(share, 0)} of the time of sampling"
    return f"Rewards take {format_percent(share, 0)} of the time of sampling: in sync after it"


def _draw_map(cells: Sequence[Cell], own: Place | None) -> figure:
    shares = sorted({cell.place.sampling_share for cell in cells})
    sigmas = sorted({cell.place.sigma for cell in cells})
    plot = make_figure(
        250,
        x_range=(-0.5, len(shares) - 0.5),
        y_range=(-0.5, len(sigmas) - 0.5),
        name="map marked" if own else "map",
    )
    plot.toolbar_location = None
    plot.grid.visible = False
    colours = [choose_gain_colour(cell.gain) for cell in cells]
    source = ColumnDataSource(
        {
            "x": [shares.index(cell.place.sampling_share) for cell in cells],
            "y": [sigmas.index(cell.place.sigma) for cell in cells],
            "gain": [cell.gain for cell in cells],
            "text": [format_decimal(cell.gain, 2) for cell in cells],
            "share": [100 * cell.place.sampling_share for cell in cells],
            "sigma": [cell.place.sigma for cell in cells],
            "split": [f"{cell.rollout_gpus}:{cell.trainer_gpus}" for cell in cells],
            "sync": [cell.sync_s for cell in cells],
            "step": [cell.step_s for cell in cells],
            "colour": [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours],
            "ink": ["#ffffff" if _is_dark(colour) else "#171c22" for colour in colours],
        }
    )
    rects = plot.rect("x", "y", 0.98, 0.98, source=source, fill_color="colour", line_color=None)
    plot.text(
        "x",
        "y",
        "text",
        source=source,
        text_color="ink",
        text_align="center",
        text_baseline="middle",
        text_font_size="12px",
    )
    _label_axis(plot.xaxis[0], [format_percent(share, 0) for share in shares], "sampling of sync")
    _label_axis(plot.yaxis[0], [format_decimal(sigma, 1) for sigma in sigmas], "tail (sigma)")
    if own is not None:
        at = np.interp(own.sampling_share, shares, range(len(shares)))
        up = np.interp(own.sigma, sigmas, range(len(sigmas)))
        plot.scatter(
            [at], [up], marker="circle", size=30, fill_color=None, line_color="#171c22",
            line_width=3,
        )  # fmt: skip
    tips = [
        ("gain", "@gain{0.00}"),
        ("split", "@split"),
        ("step", "@step{0,0.0} s, of sync @sync{0,0.0} s"),
        ("sampling of sync", "@share{0} %"),
        ("sigma", "@sigma{0.0}"),
    ]
    add_hover(plot, tips, [rects])
    return plot


def _label_axis(axis, labels: Sequence[str], title: str) -> None:
    axis.ticker = FixedTicker(ticks=list(range(len(labels))))
    axis.major_label_overrides = dict(enumerate(labels))
    axis.major_tick_line_color = axis.axis_line_color = None
    axis.axis_label = title


def choose_gain_colour(gain: float) -> tuple[int, int, int]:
    """Return red, green and blue, 0 to 255 each; equal ratios are equally far from the middle."""
    strength = max(-1.0, min(1.0, math.log(gain) / math.log(FULL)))
    end = FASTER if strength > 0 else SLOWER
    mixed = [round(e + (f - e) * abs(strength)) for e, f in zip(EVEN, end, strict=True)]
    return mixed[0], mixed[1], mixed[2]


def _is_dark(colour: tuple[int, int, int]) -> bool:
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue < DARK
