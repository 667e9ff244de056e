"""Shows scores on the console: tables, and the caveats below them.

Invariants:
* A score that is not the benchmark's does not stand under the benchmark's name.
* Below each table stand all caveats of its scores, those that bar first.
* A mean reward stands beside pass@1 where it is another number, and alone where there is no pass@1.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from verl_pipeline.errors import show_line
from verl_pipeline.evaluation.caveats import Caveat, mark_name, read_caveats, sort_caveats
from verl_pipeline.number_formats import (
    format_decimal,
    format_gain,
    format_interval,
    format_percent,
    format_score,
)

REWARD_DIGITS = 3


def print_line(console: Console, text: str, style: str = "") -> None:
    """Print one line: without markup, highlighting, wrapping or control characters."""
    console.print(show_line(text), style=style, markup=False, highlight=False, soft_wrap=True)


def print_caveats(console: Console, name: str, caveats: Iterable[Caveat]) -> None:
    """Print the caveats of the score that ``name`` names, one a line."""
    for caveat in sort_caveats(caveats):
        style = "bold red" if caveat.is_loud else "yellow" if caveat.bars else "dim"
        print_line(console, f"{name}: {caveat.text}", style)


def format_main_score(task: Mapping[str, Any]) -> str:
    """Return pass@1, and the mean reward if it is another number."""
    score, reward = task["pass@1"], task.get("mean_reward")
    if reward is None:
        return format_score(score)
    text = f"mean reward {_format_reward(reward)}"
    return f"{format_score(score)}, {text}" if score else text


def _format_reward(interval: Mapping[str, Any], *, sign: bool = False) -> str:
    """Return a mean reward, or a difference of two, with its bounds."""
    value, low, high = (interval[key] for key in ("value", "low", "high"))
    return format_interval(value, low, high, REWARD_DIGITS, sign=sign)


def print_scores(console: Console, results: dict[str, Any]) -> None:
    """Print the scores of an evaluation with their caveats."""
    console.print(make_score_table(results))
    for task in results["tasks"]:
        if len(task.get("methods") or ()) > 1:
            console.print(make_method_table(task))
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
            format_main_score(task),
            _format_largest_k(task["pass@k"]),
            _format_largest_k(task["cons@k"]),
            format_percent(counts["truncated"] / max(1, counts["samples"])),
            format_decimal(task["lengths"]["mean"], 0, group=True) if task["lengths"] else "-",
            # The name of a reward function may look like markup.
            Text(f"{task['grader']}: {task['tier']}"),
        )
    return table


def make_method_table(task: Mapping[str, Any]) -> Table:
    """Return a table of the methods that make one answer of several samples."""
    table = Table(
        title=Text(f"{mark_name(task['title'], read_caveats(task))}: test-time methods"),
        caption="gain: paired by problem, over a plain vote that generates as many tokens",
    )
    for column in ("method", "tokens per problem", "score", "gain at equal tokens"):
        table.add_column(column)
    for row in task["methods"]:
        table.add_row(
            Text(row["name"]),
            format_decimal(row["tokens_per_problem"], 0, group=True),
            format_score(row),
            format_gain(row["gain"]) if row.get("gain") else "-",
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
    table = Table(
        "step", "weights", caption="* best; a difference within the intervals may be chance"
    )
    columns = []
    for column in dict.fromkeys(_list_columns(rows)):
        table.add_column(Text(column))
        columns.append(_format_column([_find_task(row, column) for row in rows]))
    for row, *cells in zip(rows, *columns, strict=True):
        table.add_row(str(row["step"]), (row["weights"] or "-")[:12], *cells)
    return table


def _list_columns(rows: list[dict[str, Any]]) -> Iterable[str]:
    """Return the tasks' names by order; a score with other marks has a column of its own."""
    for row in rows:
        for name, task in row["tasks"].items():
            yield mark_name(name, read_caveats(task))


def _find_task(row: dict[str, Any], column: str) -> dict[str, Any]:
    """Return the task of a row with this marked name; one without scores if it has none."""
    return next(
        (
            task
            for name, task in row["tasks"].items()
            if mark_name(name, read_caveats(task)) == column
        ),
        {"pass@1": None},
    )


def _format_column(tasks: Sequence[dict[str, Any]]) -> list[str]:
    """Return the main scores, the best marked: by pass@1 if all have it, else by mean reward."""
    has_pass = all(task["pass@1"] for task in tasks if task.get("mean_reward"))
    # A mean reward that equals pass@1 is left out.
    names = ["pass@1"] if has_pass else ["mean_reward", "pass@1"]
    values = [
        next((score["value"] for name in names if (score := task.get(name))), None)
        for task in tasks
    ]
    best = max((value for value in values if value is not None), default=None)
    return [
        format_main_score(task) + (" *" if value is not None and value == best else "")
        for task, value in zip(tasks, values, strict=True)
    ]


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
            *_format_comparison(row),
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


def _format_comparison(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the cells before, after and difference."""
    if row["measure"] == "pass@1":
        return format_percent(row["before"]), format_percent(row["after"]), format_gain(row)
    before, after = (
        f"{row['measure']} {format_decimal(row[side], REWARD_DIGITS)}"
        for side in ("before", "after")
    )
    return before, after, _format_reward(row, sign=True)
