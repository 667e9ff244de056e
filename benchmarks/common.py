"""What all benchmarks share: the machine, the versions, spreads of repeats, and the report.

Used by ``python -m benchmarks.<name>``; it measures nothing itself.

Invariants:
* A report appears under its name complete, or not at all.
* An interval says what it is worth: without a second repeat there is none, never one of width 0.
"""

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from verl_pipeline.evaluation.estimators import student_t
from verl_pipeline.machine import describe_machine, read_package_versions

# When the process began to measure: the report is written at its end.
_STARTED = datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of what is measured, as far as installed, and the repository's ``commit``
    (``-dirty`` with changes).
    """
    found = read_package_versions()
    describe = "git describe --always --dirty --abbrev=40 --exclude=*".split()
    # Without git, or outside a repository, there is no commit to name.
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        run = subprocess.run(
            describe, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
        found["commit"] = run.stdout.strip()
    return found


def median_spread(values: Sequence[float]) -> dict[str, float]:
    """``median``, ``min``, ``max``, ``q1``, ``q3`` (linear between repeats), in the unit of
    ``values``, and ``n``.
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


def geometric_ratio(
    a: list[float], b: list[float], *, paired: bool = False
) -> dict[str, float | None]:
    """Ratio of the geometric means of the repeats ``a`` and ``b``, with a 95 % interval.

    With x = ln a, y = ln b, the interval is exp(d ± t se), t the 97.5 % quantile of Student's
    distribution:

    * unpaired (Welch): d = mean x - mean y; se² = u + v, u = var x / n, v = var y / m;
      degrees of freedom (u + v)² / (u² / (n - 1) + v² / (m - 1));
    * paired (a[i] measured beside b[i]): d = mean, se² = var / n of the differences x[i] - y[i]; n
      - 1 degrees.

    Returns:
        ``ratio``, ``low``, ``high`` (no unit); the last two are None where a single repeat allows
        no interval.
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
    half = student_t(freedom) * math.sqrt(total)
    return {
        "ratio": math.exp(middle),
        "low": math.exp(middle - half),
        "high": math.exp(middle + half),
    }


def ratio_text(ratio: Mapping[str, float | None]) -> str:
    """What :func:`geometric_ratio` returned, as in the tables: ``1.37 [1.01, 1.85]``."""
    interval = "" if ratio["low"] is None else f" [{ratio['low']:.2f}, {ratio['high']:.2f}]"
    return f"{ratio['ratio']:.2f}{interval}"


def write_report(path: Path, name: str, arguments: Mapping[str, Any], results: Any) -> None:
    """Write the report of benchmark ``name`` as JSON, by one rename; ``started`` is UTC (ISO 8601)."""
    report = {
        "benchmark": name,
        "started": _STARTED,
        "arguments": dict(arguments),
        "machine": describe_machine(),
        "versions": versions(),
        "results": results,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # NaN is no JSON: better an error here than a file that other readers refuse.
        scratch.write_text(json.dumps(report, indent=2, default=str, allow_nan=False) + "\n")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print ``rows`` under ``columns`` (keys of the rows); floats to three digits, what is missing
    as ``-``.
    """
    shown = Table()
    for column in columns:
        shown.add_column(
            column, justify="left" if column == columns[0] else "right", overflow="fold"
        )
    for row in rows:
        shown.add_row(*[_cell(row.get(column)) for column in columns])
    # Into a file, rich would fold the table to 80 columns.
    Console(width=None if sys.stdout.isatty() else 140).print(shown)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "-" if value is None else str(value)
