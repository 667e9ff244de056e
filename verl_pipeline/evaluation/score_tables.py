"""Shows scores on the console: tables, and the caveats below them.

Invariants:
* A score that is not the benchmark's does not stand under the benchmark's name.
* Below each table stand all caveats of its scores, those that bar first.
"""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from verl_pipeline.evaluation.caveats import Caveat, mark_name, read_caveats, sort_caveats
from verl_pipeline.number_formats import (
    format_decimal,
    format_gain,
    format_percent,
    format_score,
)


def print_line(console: Console, text: str, style: str = "") -> None:
    """Print the text as it is: without markup, highlighting or wrapping."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def print_caveats(console: Console, name: str, caveats: Iterable[Caveat]) -> None:
    """Print the caveats of the score that ``name`` names, one a line."""
    for caveat in sort_caveats(caveats):
        print_line(console, f"{name}: {caveat.text}", "yellow" if caveat.bars else "dim")


def print_scores(console: Console, results: dict[str, Any]) -> None:
    """Print the scores of an evaluation with their caveats."""
    console.print(make_score_table(results))
    for task in results["tasks"]:
        print_caveats(console, task["task"], read_caveats(task))


def make_score_table(results: dict[str, Any]) -> Table:
    """Return a table with one row per task."""
    table = Table(title=Text(results["model"]["name"]), caption="95 % intervals over problems")
    for column in (
        "task",
        "problems x n",
        "pass@1",
        "pass@k",
        "vote of k",
        "truncated",
        "tokens",
        "grader",
    ):
        table.add_column(column)
    for task in results["tasks"]:
        counts, n = task["counts"], task["sampling"]["n"]
        table.add_row(
            Text(mark_name(task["title"], read_caveats(task))),
            f"{counts['problems']} x {n}",
            format_score(task["pass@1"]),
            _format_largest_k(task["pass@k"]),
            _format_largest_k(task["cons@k"]),
            format_percent(counts["truncated"] / max(1, counts["samples"])),
            format_decimal(task["lengths"]["mean"], 0, group=True) if task["lengths"] else "-",
            # The name of a reward function may look like markup.
            Text(f"{task['grader']}: {task['tier']}"),
        )
    return table


def _format_largest_k(curve: list[dict[str, Any]]) -> str:
    if not curve or curve[-1]["k"] == 1:
        return "-"
    return f"{format_score(curve[-1])} (k={curve[-1]['k']})"


def print_checkpoints(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print the scores of a run's checkpoints with their caveats.

    Args:
        rows: rows of ``checkpoints.json``.
    """
    console.print(make_checkpoint_table(rows))
    names = dict.fromkeys(name for row in rows for name in row["tasks"])
    for name in names:
        steps: dict[Caveat, list[int]] = {}
        for row in rows:
            for caveat in read_caveats(row["tasks"][name]) if name in row["tasks"] else ():
                steps.setdefault(caveat, []).append(row["step"])
        for caveat in sort_caveats(steps):
            listed = ", ".join(map(str, steps[caveat]))
            where = "" if len(steps[caveat]) == len(rows) else f" (step {listed})"
            print_caveats(console, f"{name}{where}", [caveat])


def make_checkpoint_table(rows: list[dict[str, Any]]) -> Table:
    """Return a table with one row per checkpoint; the best score of each task is marked."""
    columns = dict.fromkeys(_list_columns(rows))
    best = {
        column: max(
            (score["value"] for row in rows if (score := _find_score(row, column))), default=None
        )
        for column in columns
    }
    table = Table(
        "step", "weights", caption="* best; a difference within the intervals may be chance"
    )
    for column in columns:
        table.add_column(Text(column))
    for row in rows:
        scores = {column: _find_score(row, column) for column in columns}
        cells = [
            format_score(score) + (" *" if score and score["value"] == best[column] else "")
            for column, score in scores.items()
        ]
        table.add_row(str(row["step"]), (row["weights"] or "-")[:12], *cells)
    return table


def _list_columns(rows: list[dict[str, Any]]) -> Iterable[str]:
    """Return the tasks' names by order; a score with other marks has a column of its own."""
    for row in rows:
        for name, task in row["tasks"].items():
            yield mark_name(name, read_caveats(task))


def _find_score(row: dict[str, Any], column: str) -> dict[str, Any] | None:
    return next(
        (
            task["pass@1"]
            for name, task in row["tasks"].items()
            if mark_name(name, read_caveats(task)) == column
        ),
        None,
    )


def print_comparison(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print the rows of :func:`verl_pipeline.evaluation.comparison.compare_folders`."""
    table = Table(
        "task",
        "problems",
        "before",
        "after",
        "difference, 95 %",
        "better / worse",
        caption="paired by problem",
    )
    for row in rows:
        table.add_row(
            Text(row["name"]),
            str(row["problems"]),
            format_percent(row["before"]),
            format_percent(row["after"]),
            format_gain(row),
            f"{row['better']} / {row['worse']}",
        )
    console.print(table)
    for row in rows:
        for reason in row["not_comparable"]:
            print_line(console, f"{row['task']}: NOT COMPARABLE: {reason}", "bold yellow")
        for note in row["notes"]:
            print_line(console, f"{row['task']}: {note}", "yellow")
        for side, caveats in row["caveats"].items():
            print_caveats(console, f"{row['task']}, {side}", read_caveats({"caveats": caveats}))
