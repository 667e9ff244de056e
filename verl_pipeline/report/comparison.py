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
from verl_pipeline.report.run_content import Charts
from verl_pipeline.report.run_view import RunView, format_figure

# Of a step; what takes less explains nothing.
LEAST_S = 0.005


def show_comparison(views: Sequence[RunView], charts: Charts) -> dict[str, Any]:
    """Return what the template shows of several runs, and add its charts."""
    bills, labels = [], []
    for view in views:
        bills += view.pool_bills
        labels += [f"{view.name}: {bill.pool}" for bill in view.pool_bills]
    curves = draw_curves({view.name: view.run.steps for view in views})
    return {
        "bill": charts.add(draw_run_bills(bills, labels)),
        "tables": [
            {"title": title, "rows": [show_row(label, values) for label, values in rows]}
            for title, rows in (
                ("Figures", compare_figures(views)),
                ("Seconds of a step", compare_seconds(views)),
            )
        ],
        "curves": [{"title": title, "id": charts.add(chart)} for title, chart in curves],
    }


def compare_figures(views: Sequence[RunView]) -> list[tuple[str, list[float]]]:
    """Return figures by label, one value a run, NaN if unknown."""
    return [(label, [view.figures[label] for view in views]) for label in views[0].figures]


def compare_seconds(views: Sequence[RunView]) -> list[tuple[str, list[float]]]:
    """Return the seconds of a mean step by pool and name, which explain the ratio of the steps."""
    table = []
    pools = dict.fromkeys(str(bill.pool) for view in views for bill in view.pool_bills)
    for pool in pools:
        shares = [_average_seconds(view, pool) for view in views]
        for name in sort_names({name for share in shares for name in share}):
            values = [share.get(name, 0.0 if share else np.nan) for share in shares]
            if np.nanmax(values) >= LEAST_S:
                table.append((f"{pool}: {label_name(name)}", values))
    return table


def _average_seconds(view: RunView, pool: str) -> dict[str, float]:
    """Return the mean seconds of a complete step by name; empty if there is none."""
    own = [bill for bill in view.step_bills if bill.pool == pool]
    names = own[0].seconds if own else {}
    return {name: sum(bill.seconds[name] for bill in own) / len(own) for name in names}


def show_row(label: str, values: Sequence[float]) -> dict[str, Any]:
    """Return a row of the table: the values as texts, with ratios to the first."""
    cells = []
    for value in values:
        has_ratio = np.isfinite(value) and np.isfinite(values[0]) and values[0] != 0
        ratio = f"× {value / values[0]:.2f}" if has_ratio else ""
        cells.append({"text": format_figure(value), "ratio": ratio})
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
