"""What all charts share: tools, sizes, and how one becomes JSON for the page.

Invariants:
* Charts are as wide as their place on the page.
* A page that is scrolled by wheel or finger scrolls on over a chart: zooming by wheel takes Ctrl,
  by dragging a mouse.
* Colours of texts, grids and grounds are the page's: ``page.js`` sets them, light or dark.
"""

from typing import Any

from bokeh.core.validation import silence
from bokeh.core.validation.warnings import MISSING_RENDERERS
from bokeh.embed import json_item
from bokeh.models import (
    BoxZoomTool,
    HoverTool,
    Legend,
    PanTool,
    Plot,
    ResetTool,
    UIElement,
    WheelZoomTool,
)
from bokeh.plotting import figure

# A run that has just begun has nothing to draw yet.
silence(MISSING_RENDERERS, True)


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
    plot.toolbar.autohide = plot.toolbar_inner = True
    plot.outline_line_color = plot.border_line_color = None
    # Until the page gives it its colour: of white, the edges would stay on a dark page.
    plot.background_fill_color = plot.border_fill_color = None
    plot.min_border_left = 44
    for axis in plot.axis:
        axis.axis_label_text_font_style = "normal"
        axis.minor_tick_line_color = None
    return plot


def add_hover(plot: figure, tips: list[tuple[str, str]], renderers: list, **settings: Any) -> None:
    """Show texts beside the mouse; fields are Bokeh's, as in ``@seconds{0.0} s``."""
    plot.add_tools(HoverTool(tooltips=tips, renderers=renderers, **settings))


def encode_figure(chart: UIElement) -> dict[str, Any]:
    """Return what ``page.js`` draws: ``item`` for ``Bokeh.embed.embed_item``, and ``legend``.

    The legend is one of HTML, which folds on a narrow screen: the label and colour of each entry,
    and the ids of the renderers that a click on it hides.
    """
    legend: dict[str, dict[str, Any]] = {}
    plots = [model for model in chart.references() if isinstance(model, Plot)]
    owned = [(plot, one) for plot in plots for one in plot.center if isinstance(one, Legend)]
    for plot, drawn in owned:
        # It would take its room even if it were not visible.
        plot.center.remove(drawn)
        for item in drawn.items:
            label = item.label.value
            glyph = item.renderers[0].glyph
            colour = getattr(glyph, "fill_color", None) or glyph.line_color
            entry = legend.setdefault(label, {"label": label, "colour": colour, "ids": []})
            entry["ids"] += [renderer.id for renderer in item.renderers]
    return {"item": json_item(chart), "legend": list(legend.values())}
