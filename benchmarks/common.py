"""Shared by all benchmarks: versions, statistics of repeats, reports and tables.

Invariants:
* A report is written completely or not at all.
* A single repeat yields no interval, rather than one of width 0.
"""

import contextlib
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from verl_pipeline.evaluation.estimators import compute_student_t
from verl_pipeline.machine import describe_machine, read_package_versions
from verl_pipeline.number_formats import format_decimal, format_interval
from verl_pipeline.outputs.errors import OutputError
from verl_pipeline.outputs.files import prepare_target, refuse_foreign_text, write_text
from verl_pipeline.path_options import path_option

# The report is written at the end of the process, so its start is recorded here.
_STARTED = datetime.now(UTC).isoformat(timespec="seconds")


def read_versions() -> dict[str, str]:
    """Return the installed packages' versions and the repository's ``commit``.

    The commit ends with ``-dirty`` if there are uncommitted changes.
    """
    versions = read_package_versions()
    describe = "git describe --always --dirty --abbrev=40 --exclude=*".split()
    # There is no commit without git, or outside a repository.
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        run = subprocess.run(
            describe, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
        versions["commit"] = run.stdout.strip()
    return versions


def summarize_spread(values: Sequence[float]) -> dict[str, float]:
    """Return ``median``, ``min``, ``max``, quartiles ``q1`` and ``q3``, and the count ``n``.

    The quartiles interpolate linearly between values; all but ``n`` have the unit of ``values``.
    """
    ordered = sorted(values)
    quartiles = (
        statistics.quantiles(ordered, n=4, method="inclusive")
        if len(ordered) > 1
        else [ordered[0]] * 3
    )
    q1, median, q3 = quartiles
    return {
        "median": median,
        "min": ordered[0],
        "max": ordered[-1],
        "q1": q1,
        "q3": q3,
        "n": len(ordered),
    }


def estimate_ratio(
    a: list[float], b: list[float], *, paired: bool = False
) -> dict[str, float | None]:
    """Estimate the ratio of the geometric means of ``a`` and ``b``, with a 95 % interval.

    With x = ln a, y = ln b, the interval is exp(d ± t se); t is the 97.5 % quantile of Student's
    distribution:

    * unpaired (Welch): d = mean x - mean y; se² = u + v, u = var x / n, v = var y / m;
      degrees of freedom (u + v)² / (u² / (n - 1) + v² / (m - 1));
    * paired (a[i] measured beside b[i]): d = mean and se² = var / n of the differences x[i] - y[i];
      n - 1 degrees of freedom.

    Returns:
        ``ratio``, ``low`` and ``high``; the last two are None for a single repeat.
    """
    x, y = [math.log(value) for value in a], [math.log(value) for value in b]
    if paired:
        differences = [left - right for left, right in zip(x, y, strict=True)]
        middle = statistics.fmean(differences)
        parts = [(differences, len(differences))]
    else:
        middle = statistics.fmean(x) - statistics.fmean(y)
        parts = [(x, len(x)), (y, len(y))]
    if min(n for _values, n in parts) < 2:
        return {"ratio": math.exp(middle), "low": None, "high": None}
    squares = [statistics.variance(values) / n for values, n in parts]
    total = sum(squares)
    if total == 0.0:
        return {"ratio": math.exp(middle), "low": math.exp(middle), "high": math.exp(middle)}
    freedom = total**2 / sum(
        square**2 / (n - 1) for square, (_values, n) in zip(squares, parts, strict=True)
    )
    half = compute_student_t(freedom) * math.sqrt(total)
    return {
        "ratio": math.exp(middle),
        "low": math.exp(middle - half),
        "high": math.exp(middle + half),
    }


def format_ratio(ratio: Mapping[str, Any], digits: int = 2) -> str:
    """Return a result of :func:`estimate_ratio` as ``1.37 [1.01, 1.85]``."""
    return format_interval(ratio["ratio"], ratio["low"], ratio["high"], digits)


def write_report(path: Path, name: str, arguments: Mapping[str, Any], results: Any) -> None:
    """Write the report of benchmark ``name`` as JSON, atomically; ``started`` is UTC."""
    report = {
        "benchmark": name,
        "started": _STARTED,
        "arguments": dict(arguments),
        "machine": describe_machine(),
        "versions": read_versions(),
        "results": results,
    }
    # JSON has no NaN: an error here is better than a file that other readers reject.
    write_text(path, json.dumps(report, indent=2, default=str, allow_nan=False) + "\n")


def check_report_path(path: Path) -> Path:
    """Callback of a benchmark's ``--output``: refuse, before anything is measured, a bad file.

    Raises:
        typer.BadParameter: the file is not a report of a benchmark, or cannot be read.
    """
    try:
        refuse_foreign_text(path, '"benchmark":', "a report of a benchmark")
        prepare_target(path)
    except OutputError as error:
        raise typer.BadParameter(str(error)) from error
    return path


ReportOption = Annotated[Path, path_option(help="Results as JSON.", callback=check_report_path)]


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print ``rows`` as a table.

    Args:
        rows: floats are printed with three digits, missing values as ``-``.
        columns: keys of the rows.
    """
    table = Table()
    for column in columns:
        table.add_column(
            column, justify="left" if column == columns[0] else "right", overflow="fold"
        )
    for row in rows:
        table.add_row(*[_format_cell(row.get(column)) for column in columns])
    # Without a terminal, rich would fold the table to 80 columns.
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _format_cell(value: Any) -> str:
    if isinstance(value, float):
        return format_decimal(value, 0, group=True) if abs(value) >= 1000 else f"{value:.3g}"
    return "-" if value is None else str(value)
