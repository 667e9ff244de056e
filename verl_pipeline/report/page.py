"""Assembles the HTML file: template, style, scripts, Bokeh's bundle and data, all in one.

Invariants:
* The policy in the page allows the scripts below by their hashes, no other and no request.
* JSON has neither ``<``, ``>`` nor ``&`` and is ASCII, so no text ends its element; it has no NaN.
* The file is replaced as a whole, by one rename.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from bokeh.models import UIElement
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from verl_pipeline import __version__
from verl_pipeline.outputs.files import write_text
from verl_pipeline.report.figures import encode_figure

_ASSETS = Path(__file__).with_name("assets")
# In this order: later ones use what earlier ones define.
_SCRIPTS = ("viewer.js", "rollouts.js", "samples.js", "page.js")


@dataclass
class Charts:
    """The charts of a page, by the id that its template names."""

    items: dict[str, UIElement] = field(default_factory=dict)

    def add(self, chart: UIElement) -> str:
        """Add a chart, and return its id."""
        name = str(len(self.items))
        self.items[name] = chart
        return name


def write_page(
    path: Path,
    template: str,
    context: Mapping[str, Any],
    charts: Charts,
    data: Mapping[str, Any],
) -> int:
    """Write a page.

    Args:
        path: of the file.
        template: name of a file in ``assets`` that extends ``page.html.jinja``.
        context: what the template shows, with ``title`` and ``mark``; texts are escaped.
        charts: those whose ids the template names.
        data: what scripts read as JSON, by the id of its element.

    Returns:
        Its size in bytes.

    Raises:
        OutputError: the system refuses.
    """
    environment = Environment(
        loader=FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [read_bokeh(), *((_ASSETS / name).read_text("utf-8") for name in _SCRIPTS)]
    hashes = " ".join(_hash_script(script) for script in scripts)
    # Bokeh sets style elements, and icons as data.
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    items = {f"chart-{name}": encode_figure(chart) for name, chart in charts.items.items()}
    text = environment.get_template(template).render(
        context,
        policy=policy,
        style=Markup(read_style()),
        scripts=[Markup(script) for script in scripts],
        data={name: Markup(encode_json(one)) for name, one in {**items, **data}.items()},
        footer=f"verl-pipeline {__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
    )
    write_text(path, text)
    return len(text.encode(errors="backslashreplace"))


def read_style() -> str:
    """Return the style sheet of all pages."""
    return (_ASSETS / "style.css").read_text("utf-8")


def read_bokeh() -> str:
    """Return the browser bundle in the installed package of Bokeh."""
    return files("bokeh").joinpath("server/static/js/bokeh.min.js").read_text("utf-8")


def encode_json(data: Any) -> str:
    """Return JSON that cannot end the script element it is in.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash_script(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
