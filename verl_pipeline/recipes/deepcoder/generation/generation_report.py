"""Figures of a generation: ``generation.json``, and what ``verl-pipeline grade`` verifies again.

``problems.jsonl`` and ``solutions.jsonl`` hold the problems that are left, with their references:
``verl-pipeline grade OUTPUT/problems.jsonl OUTPUT/solutions.jsonl`` grades each of them anew.

Invariants:
* The files depend only on the settings, the inputs and the result.
* Mutation scores are those of the problems that are left after the preparation.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from verl_pipeline.number_formats import format_decimal, format_percent
from verl_pipeline.outputs.files import write_json, write_lines
from verl_pipeline.recipes.deepcoder.data.preparation import PreparationResult
from verl_pipeline.recipes.deepcoder.generation.candidates import GeneratedRow
from verl_pipeline.recipes.deepcoder.generation.generation_config import GenerateConfig
from verl_pipeline.recipes.deepcoder.generation.generation_loader import METHOD_SOURCES


def write_figures(
    config: GenerateConfig,
    rows: Mapping[str, Sequence[GeneratedRow]],
    result: PreparationResult,
) -> dict[str, Any]:
    """Write the three files into ``config.output``; return the content of ``generation.json``."""
    output = Path(config.output)
    rows_by_id = {
        f"{METHOD_SOURCES[method]}/{row.id}": row
        for method, method_rows in rows.items()
        for row in method_rows
    }
    kept = [record for record in result.records]
    write_lines(
        output / "problems.jsonl",
        (
            {
                "id": record.id,
                "source": record.reader,
                "tests": rows_by_id[record.id].tests,
                "question": record.question,
                "generation": dict(rows_by_id[record.id].generation),
            }
            for record in kept
        ),
    )
    write_lines(
        output / "solutions.jsonl",
        ({"id": record.id, "program": record.solutions[0]} for record in kept),
    )
    left = Counter(record.source for record in kept)
    figures = {
        "methods": {
            method: _describe_method(
                method_rows,
                left[METHOD_SOURCES[method]],
                [
                    rows_by_id[record.id].generation
                    for record in kept
                    if record.source == METHOD_SOURCES[method]
                ],
            )
            for method, method_rows in rows.items()
        }
    }
    write_json(output / "generation.json", figures)
    return figures


def _describe_method(
    rows: Sequence[GeneratedRow], left: int, generations: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    reasons = Counter(
        row.skip_reason.partition(":")[0] for row in rows if row.skip_reason is not None
    )
    scores = sorted(one["mutation_score"] for one in generations if one.get("mutants"))
    figures: dict[str, Any] = {
        "candidates": len(rows),
        "rejected": dict(reasons.most_common()),
        "made": len(rows) - reasons.total(),
        "left": left,
        "mutants": sum(one.get("mutants", 0) for one in generations),
        "killed": sum(one.get("killed", 0) for one in generations),
    }
    if scores:
        figures["mutation_score"] = {
            "lowest": scores[0],
            "median": statistics.median(scores),
            "mean": round(statistics.fmean(scores), 4),
            "all_killed": sum(score == 1 for score in scores),
        }
    return figures


def build_method_table(figures: Mapping[str, Any]) -> Table:
    """Build a table with a row per method: candidates, problems, mutation scores."""
    table = Table(
        *("method", "candidates", "made", "left", "mutants killed", "median score", "lowest")
    )
    for method, one in figures["methods"].items():
        score = one.get("mutation_score")
        table.add_row(
            method,
            str(one["candidates"]),
            str(one["made"]),
            str(one["left"]),
            f"{one['killed']} of {one['mutants']}",
            format_percent(score["median"], 0) if score else "",
            format_decimal(score["lowest"], 2) if score else "",
        )
    return table
