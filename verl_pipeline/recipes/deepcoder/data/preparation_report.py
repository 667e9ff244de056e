"""Writes ``report.json``, ``report.html`` and ``removed.jsonl``: every removed row has a reason.

Invariants:
* The files depend only on the settings, the inputs and the result; they hold no time and no
  location of a data file.
* Every row that was read is counted: for each data source, the rows that are left and the removed
  rows add up to it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.recorded_files import read_records
from verl_pipeline.outputs.files import write_json, write_lines, write_text
from verl_pipeline.recipes.deepcoder.data.ingestion import BROKEN_ROW
from verl_pipeline.recipes.deepcoder.data.parquet_schema import SCHEMA_VERSION
from verl_pipeline.recipes.deepcoder.data.preparation import PreparationResult
from verl_pipeline.recipes.deepcoder.data.preparation_config import (
    PrepareConfig,
    select_result_settings,
)
from verl_pipeline.recipes.deepcoder.data.preparation_page import render_page
from verl_pipeline.recipes.deepcoder.data.problem_records import RemovedRow

REPORT_SCHEMA = 1
# Examples per stage, data source and reason.
MAX_EXAMPLES = 3
# Listed rows that could not be read.
MAX_BROKEN_ROWS = 200
# Characters of a problem's text that are shown.
MAX_TEXT = 400


def write_reports(config: PrepareConfig, result: PreparationResult) -> dict[str, Any]:
    """Write the three files into ``config.output``; return the content of ``report.json``."""
    output = Path(config.output)
    report = build_report(config, result)
    write_lines(
        output / "removed.jsonl",
        ({"stage": stage, **row.to_json()} for stage, row in _list_removals(result)),
    )
    write_json(output / "report.json", report)
    write_text(output / "report.html", render_page(report))
    return report


def build_report(config: PrepareConfig, result: PreparationResult) -> dict[str, Any]:
    """Build the content of ``report.json``, in version :data:`REPORT_SCHEMA`."""
    stages = ["ingest", *(stage.stage for stage in result.stages)]
    reasons: dict[str, dict[str, Counter[str]]] = {
        name: {stage: Counter() for stage in stages} for name in result.sources
    }
    example_rows: dict[tuple[str, str, str], list[RemovedRow]] = {}
    broken_rows: list[dict[str, str]] = []
    for stage, row in _list_removals(result):
        reasons[row.source][stage][row.reason] += 1
        if row.reason == BROKEN_ROW:
            broken_rows.append(
                {"source": row.source, "row": row.id.partition("/")[2], "why": row.detail}
            )
            continue
        examples = example_rows.setdefault((stage, row.source, row.reason), [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(row)
    return {
        "schema": REPORT_SCHEMA,
        "parquet_schema": SCHEMA_VERSION,
        "settings": select_result_settings(config),
        "versions": result.versions,
        "evaluations": {
            name: {
                "problems": len(loaded.items),
                "sha256": loaded.digest,
                "bad_rows": len(loaded.bad_rows),
            }
            for name, loaded in result.evaluations.loaded.items()
        },
        "warnings": result.warnings,
        "stages": stages,
        "sources": _count_sources(result, stages, reasons),
        "broken": {"count": len(broken_rows), "rows": broken_rows[:MAX_BROKEN_ROWS]},
        "examples": _build_examples(result, example_rows),
        "outputs": result.outputs,
    }


def _list_removals(result: PreparationResult) -> Iterator[tuple[str, RemovedRow]]:
    """Yield the stage and the row of every removal."""
    for source in result.sources.values():
        yield from (("ingest", row) for row in source.read_removals())
    for stage in result.stages:
        yield from ((stage.stage, row) for row in stage.read_removals())


def _count_sources(
    result: PreparationResult, stages: list[str], reasons: dict[str, dict[str, Counter[str]]]
) -> dict[str, Any]:
    """Count, per data source, the rows that each stage received and removed."""
    splits: dict[str, Counter[str]] = {name: Counter() for name in result.sources}
    for line in read_records(result.stages[-1].kept_file):
        splits[line["source"]][line["fields"]["split"]] += 1
    sources = {}
    for name, source in result.sources.items():
        row_count = left = source.kept_count + source.removed_count
        counts = {}
        for stage in stages:
            removed = reasons[name][stage].total()
            counts[stage] = {
                "came": left,
                "went": removed,
                "reasons": dict(sorted(reasons[name][stage].items())),
            }
            left -= removed
        sources[name] = {
            "rows": row_count,
            "stages": counts,
            "left": left,
            **result.inputs[name],
            "splits": dict(splits[name]),
        }
    return sources


def _build_examples(
    result: PreparationResult, rows: dict[tuple[str, str, str], list[RemovedRow]]
) -> list[dict[str, Any]]:
    texts = _read_texts(result, [row for examples in rows.values() for row in examples])
    return [
        {
            "stage": stage,
            **row.to_json(),
            "text": texts.get(row.id, ""),
            "twin_text": texts.get(row.duplicate_of or "", ""),
        }
        for (stage, _source, _reason), examples in rows.items()
        for row in examples
    ]


def _read_texts(result: PreparationResult, rows: Iterable[RemovedRow]) -> dict[str, str]:
    """Return the beginning of the texts of the rows, and of the problems that they duplicate."""
    ids = {key for row in rows for key in (row.id, row.duplicate_of) if key}
    texts = {
        f"{task}/{item.id}": " ".join(message["content"] for message in item.messages)
        for task, loaded in result.evaluations.loaded.items()
        for item in loaded.items
        if f"{task}/{item.id}" in ids
    }
    for source in result.sources.values():
        texts |= {
            row["id"]: row["question"] for row in read_records(source.kept_file) if row["id"] in ids
        }
    return {key: text[:MAX_TEXT] + " ..." * (len(text) > MAX_TEXT) for key, text in texts.items()}
