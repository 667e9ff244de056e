"""Several runs beside one another: their bills, their figures with ratios, their curves.

Invariants:
* A ratio is of the figure to that of the first run, and is left out where either is not known or
  the first is nothing.
* The seconds of a pool sum to those of a mean step.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from verl_pipeline.number_formats import format_decimal
from verl_pipeline.report.bills import draw_run_bills
from verl_pipeline.report.curves import draw_curves
from verl_pipeline.report.page import Charts
from verl_pipeline.report.palette import label_name, sort_names
from verl_pipeline.report.run_view import RunView, format_figure
from verl_pipeline.telemetry.accounting import list_steady_steps

# What is smaller explains nothing, and ratios to it are of noise.
LEAST = 0.001


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
            if np.nanmax(values) >= 5 * LEAST:
                table.append((f"{pool}: {label_name(name)}", values))
    return table


def _average_seconds(view: RunView, pool: str) -> dict[str, float]:
    """Return the mean seconds by name of the steps that ``Seconds a step`` is the mean of."""
    steady = {part.step for part in list_steady_steps(view.run)}
    own = [bill for bill in view.step_bills if bill.pool == pool and bill.step in steady]
    names = own[0].seconds if own else {}
    return {name: sum(bill.seconds[name] for bill in own) / len(own) for name in names}


def show_row(label: str, values: Sequence[float]) -> dict[str, Any]:
    """Return a row of the table: the values as texts, with ratios to the first."""
    cells = []
    for value in values:
        has_ratio = np.isfinite(value) and np.isfinite(values[0]) and abs(values[0]) >= LEAST
        ratio = f"× {format_decimal(value / values[0], 2)}" if has_ratio else ""
        cells.append({"text": format_figure(value), "ratio": ratio})
    return {"label": label, "cells": cells}


def name_views(views: Sequence[RunView]) -> list[RunView]:
    """Return the views with names that differ: runs of one name get what tells their folders."""
    names = [view.name for view in views]
    if len(set(names)) == len(names):
        return list(views)
    parts = [view.run.folder.resolve().parts for view in views]
    while len(parts) > 1 and all(len(one) > 1 for one in parts):
        if len({one[-1] for one in parts}) == 1:
            parts = [one[:-1] for one in parts]
        elif len({one[0] for one in parts}) == 1:
            parts = [one[1:] for one in parts]
        else:
            break
    named: list[RunView] = []
    for number, (view, own) in enumerate(zip(views, parts, strict=True), 1):
        name = view.name if names.count(view.name) == 1 else "/".join(own)
        if name in (other.name for other in named):
            name = f"{name} ({number})"
        named.append(replace(view, name=name))
    return named
