"""Renders ``report.html`` from the content of ``report.json``.

Invariant: all text of data sources and models is escaped; the page loads and runs nothing.
"""

import html
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from verl_pipeline.number_formats import format_decimal
from verl_pipeline.report.page import read_style

HASH_DIGITS = 12
_CAPTIONS = {
    "ingest": "rows that did not become a record",
    "language": "languages other than Python",
    "tests": "too few tests",
    "length": "prompts that are too long",
    "decontaminate": "problems of evaluations",
    "verify": "problems without a verified official solution",
    "deduplicate": "duplicates of an earlier problem",
    "difficulty": "problems that the model never or always solves",
    "split": "training and held-out problems",
}
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Prepared data</title>
<style>
{style}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def render_page(report: Mapping[str, Any]) -> str:
    """Render the page of a report."""
    total = sum(source["left"] for source in report["sources"].values())
    warnings = "".join(f"<li>{_escape_html(text)}</li>" for text in report["warnings"])
    parts = [
        f"<h1>Prepared data: {_format_count(total, 'problem')}</h1>",
        f'<div class="problems"><ul>{warnings}</ul></div>' if warnings else "",
        "<h2>Problems left of each source</h2>",
        _render_summary(report),
        "<h2>Removed rows by stage and reason</h2>",
        *(_render_stage(stage, report) for stage in report["stages"]),
        "<h2>Rows that could not be read</h2>",
        _render_broken_rows(report["broken"]),
        "<h2>Inputs and outputs</h2>",
        _render_files(report),
        "<h2>Settings and versions</h2>",
        _render_details({**report["settings"], "versions": report["versions"]}),
    ]
    return _PAGE.format(style=read_style(), body="\n".join(filter(None, parts)))


def _render_summary(report: Mapping[str, Any]) -> str:
    sources = report["sources"]
    stages = [
        stage
        for stage in report["stages"]
        if any(source["stages"][stage]["went"] for source in sources.values())
    ]
    header = ["source", "rows", *stages, "left", "train", "held out"]
    rows = []
    for name, source in sources.items():
        removed = [_format_removed(source["stages"][stage]["went"]) for stage in stages]
        splits = [f"{source['splits'].get(split, 0):,}" for split in ("train", "heldout")]
        rows.append([name, f"{source['rows']:,}", *removed, f"{source['left']:,}", *splits])
    others = [stage for stage in report["stages"] if stage not in stages]
    note = f"<p>No row was removed by {_escape_html(', '.join(others))}.</p>" if others else ""
    return _render_table(header, rows, number_columns=range(1, len(header))) + note


def _render_stage(stage: str, report: Mapping[str, Any]) -> str:
    rows = [
        [name, reason, f"{count:,}", f"{source['stages'][stage]['came']:,}"]
        for name, source in report["sources"].items()
        for reason, count in source["stages"][stage]["reasons"].items()
    ]
    if not rows:
        return ""
    table = _render_table(["source", "reason", "removed", "of"], rows, number_columns=range(2, 4))
    examples = [example for example in report["examples"] if example["stage"] == stage]
    articles = "".join(map(_render_example, examples))
    summary = _format_count(len(examples), "example")
    details = f"<details><summary>{summary}</summary>{articles}</details>"
    heading = f"<h3>{_escape_html(stage)}: {_escape_html(_CAPTIONS[stage])}</h3>"
    return heading + table + (details if examples else "")


def _render_example(example: Mapping[str, Any]) -> str:
    parts = [
        f"<header><strong>{_escape_html(example['id'])}</strong>"
        f"<span>{_escape_html(example['reason'])}</span></header>",
        f"<p>{_escape_html(example['detail'])}</p>",
    ]
    if example["text"]:
        parts.append(f"<pre>{_escape_html(example['text'])}</pre>")
    if example["twin"]:
        similarity = example["similarity"]
        suffix = "" if similarity is None else f" (similarity {format_decimal(similarity, 2)})"
        parts.append(f"<p>duplicate of: {_escape_html(example['twin'])}{suffix}</p>")
        parts.append(f"<pre>{_escape_html(example['twin_text'])}</pre>")
    return f'<article class="sample">{"".join(parts)}</article>'


def _render_broken_rows(broken: Mapping[str, Any]) -> str:
    if not broken["count"]:
        return "<p>None.</p>"
    rows = [[row["source"], row["row"], row["why"]] for row in broken["rows"]]
    unlisted = broken["count"] - len(rows)
    note = f"<p>Others in removed.jsonl: {unlisted:,}.</p>" if unlisted else ""
    return _render_table(["source", "file and row", "reason"], rows) + note


def _render_files(report: Mapping[str, Any]) -> str:
    inputs = [
        [name, source["origin"], file, digest]
        for name, source in report["sources"].items()
        for file, digest in source["files"].items()
    ]
    evaluations = [
        [name, "evaluation", _format_count(loaded["problems"], "problem"), loaded["sha256"]]
        for name, loaded in report["evaluations"].items()
    ]
    outputs = [
        ["output", _format_count(file["rows"], "row"), name, file["sha256"]]
        for name, file in report["outputs"].items()
    ]
    header = ["source", "origin", "file", "SHA-256"]
    note = "<p>Hashes are shown in part; report.json has them in full.</p>"
    return _render_table(header, [*inputs, *evaluations, *outputs], hash_columns=[3]) + note


def _render_details(details: Mapping[str, Any]) -> str:
    """Render nested settings as a list of dotted names; those that are not set are left out."""
    items = "".join(
        f"<dt>{_escape_html(name)}</dt><dd>{_escape_html(text)}</dd>"
        for name, text in _list_settings(details)
    )
    return f'<dl class="facts">{items}</dl>'


def _list_settings(details: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in details.items():
        if isinstance(value, Mapping):
            yield from _list_settings(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            yield from [(f"{prefix}{name}", ", ".join(map(str, value)))] if value else []
        elif value not in (None, ""):
            yield f"{prefix}{name}", str(value)


def _render_table(
    header: Iterable[str],
    rows: Iterable[Iterable[str]],
    number_columns: Iterable[int] = (),
    hash_columns: Iterable[int] = (),
) -> str:
    """Render a table.

    Args:
        number_columns: columns, counted from 0, that are aligned to the right.
        hash_columns: columns that show the first digits only.
    """
    right_aligned, hashes = set(number_columns), set(hash_columns)

    def render_cells(row: Iterable[str], tag: str) -> str:
        cells = []
        for column, cell in enumerate(row):
            attribute = ' class="number"' if column in right_aligned else ""
            text = _escape_html(cell)
            if column in hashes and tag == "td":
                text = f'<code title="{text}">{_escape_html(cell[:HASH_DIGITS])}</code>'
            cells.append(f"<{tag}{attribute}>{text}</{tag}>")
        return "".join(cells)

    body = "".join(f"<tr>{render_cells(row, 'td')}</tr>" for row in rows)
    head = render_cells(header, "th")
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _format_count(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _format_removed(count: int) -> str:
    return f"-{count:,}" if count else "·"


def _escape_html(value: Any) -> str:
    return html.escape(str(value))
