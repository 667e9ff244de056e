"""Assembles the HTML file: template, style, scripts, Bokeh's bundle and data, all in one.

Invariants:
* The policy in the page allows the scripts below by their hashes, no other and no request.
* JSON has neither ``<``, ``>`` nor ``&`` and is ASCII, so no text ends its element; it has no NaN.
* The file is replaced as a whole, by one rename.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from verl_pipeline.outputs.files import refuse_foreign_text, write_text

MARK = "verl-pipeline report"
_ASSETS = Path(__file__).with_name("assets")
_SCRIPTS = ("rollouts.js", "page.js")


def refuse_other_file(path: Path) -> None:
    """Refuse to replace a file that is not a report.

    Raises:
        OutputError: it is not, or the system refuses to read it.
    """
    refuse_foreign_text(path, MARK, "a page of verl-pipeline report", "--out")


def write_page(
    path: Path,
    context: Mapping[str, Any],
    charts: Mapping[str, Any],
    rollouts: Sequence[Any],
) -> int:
    """Write the page.

    Args:
        path: of the file.
        context: what the template shows; texts are escaped.
        charts: of Bokeh, by the id that the template has.
        rollouts: the chunks of each run.

    Returns:
        Its size in bytes.

    Raises:
        OutputError: the system refuses.
    """
    text = render_page(context, charts, rollouts)
    write_text(path, text)
    return len(text.encode(errors="backslashreplace"))


def render_page(
    context: Mapping[str, Any], charts: Mapping[str, Any], rollouts: Sequence[Any]
) -> str:
    """Return the page's HTML."""
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
    return environment.get_template("page.html.jinja").render(
        context,
        policy=policy,
        mark=MARK,
        style=Markup((_ASSETS / "style.css").read_text("utf-8")),
        scripts=[Markup(script) for script in scripts],
        charts={name: Markup(encode_json(chart)) for name, chart in charts.items()},
        rollouts=[Markup(encode_json(chunks)) for chunks in rollouts],
    )


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
