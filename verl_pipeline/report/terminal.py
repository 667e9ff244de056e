"""The report as a terminal shows it: advice, bill of the two pools, figures, problems.

Invariant: texts of a run are shown without markup and without control characters.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from verl_pipeline.errors import show_line
from verl_pipeline.number_formats import format_decimal, format_percent
from verl_pipeline.report.comparison import compare_figures, compare_seconds, show_row
from verl_pipeline.report.palette import choose_colour, label_name
from verl_pipeline.report.run_view import RunView
from verl_pipeline.telemetry.accounting import Bill

MINIMUM_SHARE = 0.005
BAR_CELLS = 48


def print_views(console: Console, views: Sequence[RunView]) -> None:
    """Print a summary of each run, and of several the figures with ratios."""
    for view in views:
        _print_view(console, view)
    if len(views) > 1:
        console.print(_make_comparison(views))


def _print_view(console: Console, view: RunView) -> None:
    console.print()
    console.print(Text(show_line(f"{view.name} ({view.run.header.schedule})"), "bold"))
    console.print(Text(show_line(view.advice.sentence)), soft_wrap=False)
    if view.state.sentence:
        style = "red" if view.state.name == "died" else "cyan"
        console.print(Text(show_line(view.state.sentence), style))
    for problem in view.run.problems:
        console.print(Text(show_line(f"note: {problem}"), "yellow"))
    console.print()
    for bill in view.pool_bills:
        _print_bill(console, bill)
    if len(view.run.steps) > 0:
        figures = [show_row(label, [value]) for label, value in view.figures.items()]
        known = [row for row in figures if row["cells"][0]["text"] != "–"]
        grid = Table.grid(padding=(0, 2))
        for row in known:
            grid.add_row(Text(row["label"], "dim"), Text(row["cells"][0]["text"], justify="right"))
        console.print(grid)


def _print_bill(console: Console, bill: Bill) -> None:
    """Print a bar of a pool's time and its names with their shares."""
    total = bill.end - bill.start
    shares = {n: s / total for n, s in bill.seconds.items() if total and s / total > MINIMUM_SHARE}
    if not shares:
        return
    bar, drawn, before = Text(f"{bill.pool:<8} "), 0.0, 0
    for name, share in shares.items():
        drawn += share
        cells = round(drawn * BAR_CELLS) - before
        before += cells
        bar.append("█" * cells, choose_colour(name))
    console.print(bar)
    names = Text(" " * 9)
    for place, (name, share) in enumerate(sorted(shares.items(), key=lambda pair: -pair[1])):
        names.append(", " if place else "")
        names.append("■ ", choose_colour(name))
        names.append(f"{label_name(name)} {format_percent(share, 0)}")
    names.append(f" of {format_decimal(total, group=True)} s")
    console.print(names)
    console.print()


def _make_comparison(views: Sequence[RunView]) -> Table:
    table = Table()
    table.add_column("")
    for number, view in enumerate(views):
        table.add_column(Text(show_line(view.name)), justify="right")
        if number:
            table.add_column("ratio", justify="right")
    seconds = [(f"{label} (s)", values) for label, values in compare_seconds(views)]
    for label, values in compare_figures(views) + seconds:
        cells = show_row(label, values)["cells"]
        texts = [cells[0]["text"]]
        for cell in cells[1:]:
            texts += [cell["text"], cell["ratio"]]
        table.add_row(label, *texts)
    return table
