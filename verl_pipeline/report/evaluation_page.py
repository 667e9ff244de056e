"""The page of an evaluation: scores beside published ones, caveats, charts, samples to read.

Invariants:
* All caveats of a score stand in its task's section; those for which it is not the benchmark's also
  at the start of the page and below the score in the table.
* What the results do not have is left out.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.plotting import figure

from verl_pipeline.number_formats import (
    format_decimal,
    format_interval,
    format_percent,
    format_score,
)
from verl_pipeline.report.page import Charts, write_page
from verl_pipeline.report.palette import choose_colour, label_name
from verl_pipeline.report.score_charts import (
    Score,
    draw_intervals,
    draw_lengths,
    draw_score_lines,
)
from verl_pipeline.report.share_bars import Part, draw_share_bars

_MEANINGS = {
    "pass@k": "at least one of k samples is correct",
    "cons@k": "the majority answer of k samples is correct",
}


@dataclass(frozen=True)
class EvaluatedTask:
    """What the page shows of a task.

    Attributes:
        result: its entry in ``results.json``.
        name: its title, which differs from the benchmark's if the score is not the benchmark's.
        barring: caveats for which it is not; one line each.
        caveats: all others.
        problems: rows of ``samples.js``.
        notes: what the rows leave out.
    """

    result: Mapping[str, Any]
    name: str
    barring: Sequence[str]
    caveats: Sequence[str]
    problems: Sequence[Mapping[str, Any]]
    notes: Sequence[str]


def write_evaluation_page(
    path: Path, results: Mapping[str, Any], tasks: Sequence[EvaluatedTask]
) -> None:
    """Write the page.

    Args:
        results: the content of ``results.json``.
        tasks: one for each of its tasks.

    Raises:
        OutputError: the system refuses.
    """
    charts = Charts()
    scores = [
        Score(
            task.name,
            task.result["pass@1"],
            references=[
                (f"{row['model']}: {format_decimal(row['value'])} %, {row['source']}", row["value"])
                for row in task.result["published"]
                if not _is_rating(row)
            ],
        )
        for task in tasks
        if task.result["pass@1"]
    ]
    model = dict(results["model"])
    facts = {"Model": model.pop("name"), "Weights": model.pop("weights") or "hash unknown"}
    facts |= {"Settings of the model": model}
    facts |= {
        name.capitalize(): results.get(name)
        for name in ("engine", "seed", "machine", "versions", "started", "finished")
    }
    context = {
        "mark": "verl-pipeline eval",
        "title": f"Evaluation of {results['model']['name']}",
        "warnings": [f"{task.result['task']}: {text}" for task in tasks for text in task.barring],
        "scores": charts.add(draw_intervals(scores)) if scores else None,
        "tasks": [_show_task(task, charts) for task in tasks],
        "configuration": _list_facts(facts),
    }
    data = {f"samples-{i}": task.problems for i, task in enumerate(tasks)}
    write_page(path, "evaluation.html.jinja", context, charts, data)


def describe_value(value: Any) -> str:
    """Return settings as text, as ``n 8, stop [a, b]``; what is empty is left out."""
    if isinstance(value, Mapping):
        texts = {name: describe_value(part) for name, part in value.items()}
        return ", ".join(f"{name} {text}" for name, text in texts.items() if text)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(describe_value, value))}]" if value else ""
    return "" if value is None else str(value)


def _list_facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, text) for name, value in facts.items() if (text := describe_value(value))]


def _is_rating(row: Mapping[str, Any]) -> bool:
    return "rating" in row["measure"].lower()


def _format_count(value: float | None) -> str:
    return "–" if value is None else format_decimal(value, 0, group=True)


def _show_published(row: Mapping[str, Any]) -> dict[str, str]:
    value, sources = row["value"], (row["measure"], row["source"], row["note"])
    return {
        "model": row["model"],
        "value": _format_count(value) if _is_rating(row) else f"{format_decimal(value)} %",
        "source": " – ".join(filter(None, sources)),
    }


def _show_task(task: EvaluatedTask, charts: Charts) -> dict[str, Any]:
    result, counts, data = task.result, task.result["counts"], task.result["data"]
    reward, rating, votes, lengths = (
        result.get(name) for name in ("mean_reward", "rating", "cons@k", "lengths")
    )
    scores = {"pass@1": result["pass@1"] and format_score(result["pass@1"])}
    if reward:
        bounds = reward["value"], reward["low"], reward["high"]
        scores["mean reward"] = format_interval(*bounds, 3)
    if rating:
        value, low, high = (_format_count(rating[name]) for name in ("value", "low", "high"))
        scores["rating"] = f"{value} [{low}, {high}], {rating['note']}"
    facts = {
        "Samples": counts,
        "Sampling": result["sampling"],
        "Style": result.get("style"),
        "Options": result["options"],
        "Tokens": result.get("tokens"),
        "Data": {name: data[name] for name in ("problems", "origin", "sha256")},
    }
    parts = [part for part in _list_charts(result) if part["chart"]]
    return {
        "id": result["task"],
        "name": task.name,
        "split": result.get("split"),
        "scores": _list_facts(scores),
        "samples": f"{_format_count(data['problems'])} × {result['sampling']['n']}",
        "votes": f"{format_percent(votes[-1]['value'])} (k = {votes[-1]['k']})" if votes else "–",
        "truncated": format_percent(counts["truncated"] / max(counts["samples"], 1)),
        "tokens": _format_count(lengths and lengths["mean"]),
        "grader": ", ".join(filter(None, (result.get("grader"), result.get("tier")))),
        "published": [_show_published(row) for row in result["published"]],
        "barring": task.barring,
        "caveats": task.caveats,
        "facts": _list_facts(facts),
        "lists": {
            "Rows of the data that could not be read": data.get("bad_rows"),
            "Problems that are in the training data": data.get("seen_in_training"),
        },
        "charts": [{**part, "id": charts.add(part["chart"])} for part in parts],
        "notes": task.notes,
    }


def _list_charts(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield charts with title, note, and their values as a table; ``chart`` is None for too few."""
    lines = {
        name: [Score(name.replace("k", str(row["k"])), row, row["k"]) for row in result[name]]
        for name in _MEANINGS
        if result.get(name)
    }
    yield {
        "title": "Score by number of samples",
        "chart": draw_score_lines(lines, "k, samples per problem", bands=True),
        "note": "; ".join(f"{name}: {_MEANINGS[name]}" for name in lines) + ". Bands: 95 %.",
        "rows": _list_values(*lines.values()),
    }
    budgets = [
        Score(f"at most {_format_count(row['tokens'])} tokens", row, row["tokens"])
        for row in result.get("budget") or ()
    ]
    yield {
        "title": "Score by token budget",
        "chart": draw_score_lines({"pass@1": budgets}, "most tokens of a response", bands=True),
        "note": "pass@1 if longer responses count as wrong. Band: 95 %.",
        "rows": _list_values(budgets),
    }
    families: dict[str, list[Score]] = {}
    for row in sorted(result.get("methods") or (), key=lambda row: row["tokens_per_problem"]):
        # "vote of 4" and "vote of 8" belong together, as do cons@4 and cons@8.
        family = families.setdefault(re.sub(r"(@| of )\d+$", "", row["name"]), [])
        tokens = row["tokens_per_problem"]
        family.append(Score(f"{row['name']}, {_format_count(tokens)} tokens", row, tokens))
    yield {
        "title": "Score by cost",
        "chart": draw_score_lines(families, "generated tokens per problem", bands=False),
        "note": "Test-time methods. Vertical lines: 95 %.",
        "rows": _list_values(*families.values()),
    }
    lengths = result.get("lengths") or {}
    facts = {name: _format_count(lengths.get(name)) for name in ("mean", "median", "p95", "max")}
    yield {
        "title": "Lengths of responses",
        "chart": draw_lengths(lengths["histogram"]) if lengths.get("histogram") else None,
        "note": describe_value(facts),
    }
    verdicts = Counter(result.get("verdicts") or {})
    yield {
        "title": "Verdicts",
        "chart": _draw_verdicts(verdicts) if verdicts.total() else None,
        "rows": [
            (label_name(name), f"{count:,}", format_percent(count / verdicts.total()))
            for name, count in verdicts.most_common()
            if count
        ],
    }
    for tag, rows in (result.get("breakdown") or {}).items():
        scores = [Score(f"{row['name']}, {row['problems']:,} problems", row) for row in rows]
        chart = draw_intervals(scores) if scores else None
        yield {"title": f"By {tag}", "chart": chart, "rows": _list_values(scores)}


def _draw_verdicts(verdicts: Counter[str]) -> figure:
    """Draw the shares of verdicts, ``accepted`` first, then by number."""
    parts = [
        Part(
            label_name(name),
            choose_colour(name),
            np.array([count]),
            np.array([100 * count / verdicts.total()]),
        )
        for name, count in sorted(verdicts.items(), key=lambda one: (one[0] != "accepted", -one[1]))
        if count
    ]
    return draw_share_bars(["samples"], parts, "samples", "", ("samples", "0,0"))


def _list_values(*lines: Iterable[Score]) -> list[tuple[str, str]]:
    return [(score.name, format_score(score.estimate)) for line in lines for score in line]
