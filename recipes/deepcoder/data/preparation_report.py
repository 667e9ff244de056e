"""``report.json`` and ``report.html``: what came, what went, and why; ``removed.jsonl``: every row
that went.

Invariants:
* The files follow from the settings, the inputs and the outcome: no time is in them, and no place
  of a data file.
* What a source or a model wrote reaches the page escaped; the page loads nothing and runs nothing.
* Every row that was read is counted: of each source, what is left and what was removed add up to
  it.
"""

import html
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from recipes.deepcoder.data.ingestion import BROKEN
from recipes.deepcoder.data.parquet_schema import SCHEMA_VERSION
from recipes.deepcoder.data.preparation import Outcome, settings_of
from recipes.deepcoder.data.preparation_config import PrepareConfig
from recipes.deepcoder.data.problem_records import Removed
from verl_pipeline.evaluation.store import read_lines, write_json, write_lines, write_text

SCHEMA = 1
# Of each stage, source and reason; and of rows that could not be read.
EXAMPLES, MOST_BROKEN = 3, 200
# Characters of a text.
MOST_TEXT = 400
_CAPTIONS = {
    "ingest": "rows that are no record",
    "language": "another language than Python",
    "tests": "too few tests",
    "length": "prompts that are too long",
    "decontaminate": "problems that an evaluation asks",
    "verify": "problems whose official solutions do not stand",
    "deduplicate": "twins of an earlier problem",
    "difficulty": "problems that the model solves never or always",
    "split": "train and held out",
}


def write_reports(config: PrepareConfig, outcome: Outcome) -> dict[str, Any]:
    """Write the three files into ``config.output``; returns what ``report.json`` holds."""
    output = Path(config.output)
    report = report_of(config, outcome)
    write_lines(
        output / "removed.jsonl",
        ({"stage": stage, **asdict(row)} for stage, row in _removals(outcome)),
    )
    write_json(output / "report.json", report)
    write_text(output / "report.html", _page(report))
    return report


def report_of(config: PrepareConfig, outcome: Outcome) -> dict[str, Any]:
    """The report as JSON, of version :data:`SCHEMA`."""
    stages = ["ingest", *(done.stage for done in outcome.stages)]
    reasons: dict[str, dict[str, Counter[str]]] = {
        name: {stage: Counter() for stage in stages} for name in outcome.sources
    }
    picked: dict[tuple[str, str, str], list[Removed]] = {}
    broken: list[dict[str, str]] = []
    for stage, row in _removals(outcome):
        reasons[row.source][stage][row.reason] += 1
        if row.reason == BROKEN:
            broken.append(
                {"source": row.source, "row": row.id.partition("/")[2], "why": row.detail}
            )
        elif len(chosen := picked.setdefault((stage, row.source, row.reason), [])) < EXAMPLES:
            chosen.append(row)
    splits: dict[str, Counter[str]] = {name: Counter() for name in outcome.sources}
    for line in read_lines(outcome.stages[-1].file):
        splits[line["source"]][line["fields"]["split"]] += 1
    sources = {}
    for name, done in outcome.sources.items():
        left, steps = done.kept + done.removed, {}
        for stage in stages:
            went = reasons[name][stage].total()
            steps[stage] = {
                "came": left,
                "went": went,
                "reasons": dict(sorted(reasons[name][stage].items())),
            }
            left -= went
        rows = done.kept + done.removed
        sources[name] = {
            "rows": rows,
            "stages": steps,
            "left": left,
            **outcome.inputs[name],
            "splits": dict(splits[name]),
        }
    texts = _texts(outcome, [row for rows in picked.values() for row in rows])
    examples = [
        {
            "stage": stage,
            **asdict(row),
            "text": texts.get(row.id, ""),
            "twin_text": texts.get(row.twin or "", ""),
        }
        for (stage, _, _), rows in picked.items()
        for row in rows
    ]
    return {
        "schema": SCHEMA,
        "parquet_schema": SCHEMA_VERSION,
        "settings": settings_of(config),
        "versions": outcome.versions,
        "evaluations": {
            name: {
                "problems": len(loaded.items),
                "sha256": loaded.digest,
                "bad_rows": len(loaded.bad_rows),
            }
            for name, loaded in outcome.evaluations.loaded.items()
        },
        "warnings": outcome.warnings,
        "stages": stages,
        "sources": sources,
        "broken": {"count": len(broken), "rows": broken[:MOST_BROKEN]},
        "examples": examples,
        "outputs": outcome.outputs,
    }


def _removals(outcome: Outcome) -> Iterator[tuple[str, Removed]]:
    for done in outcome.sources.values():
        yield from (("ingest", row) for row in done.removals())
    for done in outcome.stages:
        yield from ((done.stage, row) for row in done.removals())


def _texts(outcome: Outcome, rows: Iterable[Removed]) -> dict[str, str]:
    """The beginning of the texts of the rows and of their twins, by id."""
    wanted = {name for row in rows for name in (row.id, row.twin) if name}
    texts = {
        f"{task}/{item.id}": " ".join(message["content"] for message in item.messages)
        for task, loaded in outcome.evaluations.loaded.items()
        for item in loaded.items
        if f"{task}/{item.id}" in wanted
    }
    for done in outcome.sources.values():
        texts |= {
            row["id"]: row["question"] for row in read_lines(done.file) if row["id"] in wanted
        }
    return {
        name: text[:MOST_TEXT] + " ..." * (len(text) > MOST_TEXT) for name, text in texts.items()
    }


def _page(report: Mapping[str, Any]) -> str:
    style = (
        resources.files("verl_pipeline.evaluation")
        .joinpath("report.css")
        .read_text(encoding="utf-8")
    )
    total = sum(source["left"] for source in report["sources"].values())
    warnings = "".join(f"<li>{_escape(text)}</li>" for text in report["warnings"])
    body = [
        f"<h1>Prepared data: {total:,} problems</h1>",
        f'<div class="warnings"><ul>{warnings}</ul></div>' if warnings else "",
        "<h2>What is left of each source</h2>",
        _summary(report),
        "<h2>Why</h2>",
        *(_stage(stage, report) for stage in report["stages"]),
        "<h2>Rows that could not be read</h2>",
        _broken(report["broken"]),
        "<h2>Inputs and outputs</h2>",
        _files(report),
        "<h2>Settings and versions</h2>",
        (
            f"<pre>{_escape(json.dumps({key: report[key] for key in ('settings', 'versions')}, indent=2))}</pre>"
        ),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta'
        ' http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src'
        ' \'unsafe-inline\'">\n<meta name="viewport" content="width=device-width,'
        ' initial-scale=1">\n<title>Prepared'
        f" data</title>\n<style>\n{style}\n</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, body))
        + "\n</main>\n</body>\n</html>\n"
    )


def _summary(report: Mapping[str, Any]) -> str:
    header = ["source", "rows", *report["stages"], "left", "train", "held out"]
    rows = []
    for name, source in report["sources"].items():
        went = [_minus(source["stages"][stage]["went"]) for stage in report["stages"]]
        splits = [f"{source['splits'].get(split, 0):,}" for split in ("train", "heldout")]
        rows.append([name, f"{source['rows']:,}", *went, f"{source['left']:,}", *splits])
    return _table(header, rows, numbers=range(1, len(header)))


def _stage(stage: str, report: Mapping[str, Any]) -> str:
    counts = [
        [name, reason, f"{count:,}", f"{source['stages'][stage]['came']:,}"]
        for name, source in report["sources"].items()
        for reason, count in source["stages"][stage]["reasons"].items()
    ]
    if not counts:
        return ""
    shown = [example for example in report["examples"] if example["stage"] == stage]
    examples = (
        f"<details><summary>{len(shown)} "
        f"examples</summary>{''.join(map(_example, shown))}</details>"
    )
    table = _table(["source", "reason", "went", "of"], counts, numbers=range(2, 4))
    return (
        f"<h3>{_escape(stage)}: {_escape(_CAPTIONS[stage])}</h3>{table}{examples if shown else ''}"
    )


def _example(example: Mapping[str, Any]) -> str:
    similarity = (
        "" if example["similarity"] is None else f" (similarity {example['similarity']:.2f})"
    )
    twin = (
        "<p>twin: "
        f"{_escape(example['twin'])}{similarity}</p><pre>{_escape(example['twin_text'])}</pre>"
    )
    text = f"<pre>{_escape(example['text'])}</pre>" if example["text"] else ""
    head = f"<header><strong>{_escape(example['id'])}</strong><span>{_escape(example['reason'])}</span></header>"
    return f"<article>{head}<p>{_escape(example['detail'])}</p>{text}{twin if example['twin'] else ''}</article>"


def _broken(broken: Mapping[str, Any]) -> str:
    if not broken["count"]:
        return "<p>None.</p>"
    rows = [[row["source"], row["row"], row["why"]] for row in broken["rows"]]
    rest = broken["count"] - len(rows)
    note = f"<p>{rest:,} more are in removed.jsonl.</p>" if rest else ""
    return _table(["source", "file and row", "why"], rows) + note


def _files(report: Mapping[str, Any]) -> str:
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
    return _table(["what", "from", "file", "SHA-256"], [*inputs, *evaluations, *outputs])


def _table(
    header: Iterable[str], rows: Iterable[Iterable[str]], numbers: Iterable[int] = ()
) -> str:
    right = set(numbers)

    def cells(row: Iterable[str], tag: str) -> str:
        marks = (' class="number"' if number in right else "" for number in range(1000))
        return "".join(
            f"<{tag}{mark}>{_escape(cell)}</{tag}>" for mark, cell in zip(marks, row, strict=False)
        )

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{cells(header, "th")}</tr>{body}</table></div>'


def _minus(count: int) -> str:
    return f"-{count:,}" if count else "0"


def _escape(value: Any) -> str:
    return html.escape(str(value))
