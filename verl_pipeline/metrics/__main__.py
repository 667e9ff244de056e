"""``python -m verl_pipeline.metrics > docs/metrics.md``: the table as a page."""

from collections.abc import Iterable

from verl_pipeline.metrics import OWN_METRICS, VERL_METRICS, Metric
from verl_pipeline.metrics.metric import OURS as OUR_MODES
from verl_pipeline.standard_streams import guard_streams

INTRODUCTION = """\
# Metrics

Every metric that a tracker (`trainer.logger`) gets, with its unit. `<word>` stands for any text and
`{a,b}` for each of the two. A share lies between 0 and 1.

A name of verl's has one meaning in verl's `sync`, in `one_off_pipeline` (at either staleness) and
in `sync_filtered`. Where that cannot be, the name is not logged, and ours stands in its place.

This page is written by `python -m verl_pipeline.metrics > docs/metrics.md`, from the table in
[verl_pipeline/metrics](../verl_pipeline/metrics); a test compares them.
"""
OURS_TITLE = "## Ours"
VERLS_TITLE = """\
## verl's

As of verl 0.9.1. "In our modes" says what is to be known there beside the meaning. `sync` logs all
of them."""


def render_page() -> str:
    """The page, as Markdown."""
    own = _render_table(
        ("name", "unit", "meaning", "logged by"),
        (
            (_render_name(entry), entry.unit, entry.meaning, ", ".join(entry.modes))
            for entry in OWN_METRICS
        ),
    )
    verls = _render_table(
        ("name", "unit", "meaning", "in our modes"),
        (
            (_render_name(entry), entry.unit, entry.meaning, _describe_in_our_modes(entry))
            for entry in VERL_METRICS
        ),
    )
    return "\n".join((INTRODUCTION, OURS_TITLE, "", *own, "", VERLS_TITLE, "", *verls, ""))


def _render_name(entry: Metric) -> str:
    return f"`{entry.name}`"


def _describe_in_our_modes(entry: Metric) -> str:
    logged = [mode for mode in OUR_MODES if mode in entry.modes]
    if not logged:
        return "not logged"
    missing = [f"not logged by {mode}" for mode in OUR_MODES if mode not in logged]
    return "; ".join(filter(None, (*missing, entry.ours)))


def _render_table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [header, ("---",) * len(header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


if __name__ == "__main__":
    with guard_streams():
        print(render_page(), end="")
