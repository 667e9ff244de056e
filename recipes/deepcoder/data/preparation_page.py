"""Renders ``report.html`` from the content of ``report.json``.

Invariant: all text of data sources and models is escaped; the page loads and runs nothing.
"""

import html
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

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
    style = (
        resources.files("verl_pipeline.evaluation")
        .joinpath("results_page.css")
        .read_text(encoding="utf-8")
    )
    total = sum(source["left"] for source in report["sources"].values())
    warnings = "".join(f"<li>{_escape_html(text)}</li>" for text in report["warnings"])
    details = {key: report[key] for key in ("settings", "versions")}
    parts = [
        f"<h1>Prepared data: {total:,} problems</h1>",
        f'<div class="warnings"><ul>{warnings}</ul></div>' if warnings else "",
        "<h2>Problems left of each source</h2>",
        _render_summary(report),
        "<h2>Removed rows by stage and reason</h2>",
        *(_render_stage(stage, report) for stage in report["stages"]),
        "<h2>Rows that could not be read</h2>",
        _render_broken_rows(report["broken"]),
        "<h2>Inputs and outputs</h2>",
        _render_files(report),
        "<h2>Settings and versions</h2>",
        f"<pre>{_escape_html(json.dumps(details, indent=2))}</pre>",
    ]
    return _PAGE.format(style=style, body="\n".join(filter(None, parts)))


def _render_summary(report: Mapping[str, Any]) -> str:
    header = ["source", "rows", *report["stages"], "left", "train", "held out"]
    rows = []
    for name, source in report["sources"].items():
        removed = [_format_removed(source["stages"][stage]["went"]) for stage in report["stages"]]
        splits = [f"{source['splits'].get(split, 0):,}" for split in ("train", "heldout")]
        rows.append([name, f"{source['rows']:,}", *removed, f"{source['left']:,}", *splits])
    return _render_table(header, rows, number_columns=range(1, len(header)))


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
    details = f"<details><summary>{len(examples)} examples</summary>{articles}</details>"
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
        suffix = "" if similarity is None else f" (similarity {similarity:.2f})"
        parts.append(f"<p>duplicate of: {_escape_html(example['twin'])}{suffix}</p>")
        parts.append(f"<pre>{_escape_html(example['twin_text'])}</pre>")
    return f"<article>{''.join(parts)}</article>"


def _render_broken_rows(broken: Mapping[str, Any]) -> str:
    if not broken["count"]:
        return "<p>None.</p>"
    rows = [[row["source"], row["row"], row["why"]] for row in broken["rows"]]
    unlisted = broken["count"] - len(rows)
    note = f"<p>{unlisted:,} more are in removed.jsonl.</p>" if unlisted else ""
    return _render_table(["source", "file and row", "reason"], rows) + note


def _render_files(report: Mapping[str, Any]) -> str:
    inputs = [
        [name, source["origin"], file, digest]
        for name, source in report["sources"].items()
        for file, digest in source["files"].items()
    ]
    evaluations = [
        [name, "evaluation", "", loaded["sha256"]] for name, loaded in report["evaluations"].items()
    ]
    outputs = [
        ["output", f"{file['rows']:,} rows", name, file["sha256"]]
        for name, file in report["outputs"].items()
    ]
    header = ["source", "origin", "file", "SHA-256"]
    return _render_table(header, [*inputs, *evaluations, *outputs])


def _render_table(
    header: Iterable[str], rows: Iterable[Iterable[str]], number_columns: Iterable[int] = ()
) -> str:
    """Render a table; columns of numbers, counted from 0, are aligned to the right."""
    right_aligned = set(number_columns)

    def render_cells(row: Iterable[str], tag: str) -> str:
        cells = []
        for column, cell in enumerate(row):
            attribute = ' class="number"' if column in right_aligned else ""
            cells.append(f"<{tag}{attribute}>{_escape_html(cell)}</{tag}>")
        return "".join(cells)

    body = "".join(f"<tr>{render_cells(row, 'td')}</tr>" for row in rows)
    head = render_cells(header, "th")
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _format_removed(count: int) -> str:
    return f"-{count:,}" if count else "0"


def _escape_html(value: Any) -> str:
    return html.escape(str(value))
