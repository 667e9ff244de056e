"""Several runs beside one another: their bills, their figures with ratios, their curves.

Invariant: a ratio is of the figure to that of the first run, and is left out where either is not
known or the first is 0.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from verl_pipeline.report.bills import draw_run_bills
from verl_pipeline.report.curves import draw_curves
from verl_pipeline.report.palette import label_name, sort_names
from verl_pipeline.report.run_view import Charts, RunView, format_figure


def show_comparison(views: Sequence[RunView], charts: Charts) -> dict[str, Any]:
    """Return what the template shows of several runs, and add its charts."""
    bills, labels = [], []
    for view in views:
        bills += view.bills
        labels += [f"{view.name}: {bill.pool}" for bill in view.bills]
    curves = draw_curves({view.name: view.run.steps for view in views})
    return {
        "bill": charts.add(draw_run_bills(bills, labels)),
        "rows": [show_row(label, values) for label, values in compare_figures(views)],
        "curves": [{"title": title, "id": charts.add(chart)} for title, chart in curves],
    }


def compare_figures(views: Sequence[RunView]) -> list[tuple[str, list[float]]]:
    """Return figures by label, one value a run, NaN if unknown; then the seconds of a step by
    pool and name, which explain the ratio of the steps."""
    table = [(label, [view.figures[label] for view in views]) for label in views[0].figures]
    pools = dict.fromkeys(str(bill.pool) for view in views for bill in view.bills)
    for pool in pools:
        shares = [_average_seconds(view, pool) for view in views]
        for name in sort_names({name for share in shares for name in share}):
            values = [share.get(name, 0.0 if share else np.nan) for share in shares]
            if max(value for value in values if value == value) >= 0.005:
                table.append((f"{pool}, seconds a step: {label_name(name)}", values))
    return table


def _average_seconds(view: RunView, pool: str) -> dict[str, float]:
    """Return the run's mean seconds of a step by name; empty if the pool has no bill."""
    steps = view.figures["Steps"]
    own = [bill for bill in view.bills if bill.pool == pool]
    return {name: s / steps for bill in own for name, s in bill.seconds.items()} if steps else {}


def show_row(label: str, values: Sequence[float]) -> dict[str, Any]:
    """Return a row of the table: the values as texts, with ratios to the first."""
    cells = []
    for value in values:
        has_ratio = np.isfinite(value) and np.isfinite(values[0]) and values[0] != 0
        ratio = f"× {value / values[0]:.2f}" if has_ratio else ""
        cells.append({"text": format_figure(label, value), "ratio": ratio})
    return {"label": label, "cells": cells}


def name_views(views: Sequence[RunView]) -> list[RunView]:
    """Return the views with names that differ: those of equal names get their folders'."""
    names = [view.name for view in views]
    named = []
    for number, view in enumerate(views, 1):
        name = view.name
        if names.count(name) > 1:
            name = f"{name} ({view.run.folder.name or view.run.folder})"
        while name in (other.name for other in named):
            name = f"{view.name} ({number})"
        named.append(replace(view, name=name))
    return named
