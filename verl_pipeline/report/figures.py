"""What all charts share: tools, sizes, and how one becomes JSON for the page.

Invariants:
* Charts are as wide as their place on the page.
* A page that is scrolled by wheel or finger scrolls on over a chart: zooming by wheel takes Ctrl,
  by dragging a mouse.
* Colours of texts, grids and grounds are the page's: ``page.js`` sets them, light or dark.
"""

from typing import Any

from bokeh.embed import json_item
from bokeh.models import BoxZoomTool, HoverTool, PanTool, ResetTool, UIElement, WheelZoomTool
from bokeh.plotting import figure

# Widths below this are thinner than a pixel on the widest of screens.
PIXELS = 4_000


def make_figure(height: int, *, zoom: str = "both", **settings: Any) -> figure:
    """Return an empty figure.

    Args:
        height: in pixels.
        zoom: ``width``, ``height`` or ``both``.
        settings: of ``bokeh.plotting.figure``.
    """
    plot = figure(
        height=height,
        sizing_mode="stretch_width",
        min_width=160,
        tools="",
        toolbar_location="above",
        **settings,
    )
    box = BoxZoomTool(dimensions=zoom)
    plot.add_tools(
        box,
        PanTool(dimensions=zoom),
        WheelZoomTool(dimensions=zoom, modifiers="ctrl"),
        ResetTool(),
    )
    plot.toolbar.active_drag = box
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.outline_line_color = None
    plot.min_border_left = 44
    for axis in plot.axis:
        axis.axis_label_text_font_style = "normal"
        axis.minor_tick_line_color = None
    return plot


def add_hover(plot: figure, tips: list[tuple[str, str]], renderers: list, **settings: Any) -> None:
    """Show texts beside the mouse; fields are Bokeh's, as in ``@seconds{0.0} s``."""
    plot.add_tools(HoverTool(tooltips=tips, renderers=renderers, **settings))


def place_legend(plot: figure) -> None:
    """Put the legend above the chart, in lines; a click on an entry hides what it stands for."""
    if not plot.legend:
        return
    legend = plot.legend[0]
    legend.click_policy = "hide"
    legend.orientation = "horizontal"
    legend.ncols = "auto"
    legend.border_line_color = None
    legend.background_fill_alpha = 0
    legend.padding = legend.margin = 2
    legend.spacing = 6
    legend.label_text_font_size = "12px"
    legend.label_height = legend.glyph_height = legend.glyph_width = 14
    plot.add_layout(legend, "above")


def encode_figure(plot: UIElement) -> dict[str, Any]:
    """Return what ``Bokeh.embed.embed_item`` takes."""
    return json_item(plot)
