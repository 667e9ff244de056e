"""Table of :mod:`benchmarks.emulated_cluster`.

Invariant: gains compare the same steps of runs of the same seed, hence the same lengths.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.common import estimate_ratio, format_ratio
from verl_pipeline.number_formats import format_decimal, format_percent, format_points


def make_rows(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each cluster, work and mode, in the order of the runs."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    baselines: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        slow = ", ".join(f"{n}:{factor:g}" for n, factor in result["slow_replicas"].items())
        work, mode = (result["profile"], result["lengths"], slow), result["mode"]
        groups[work, mode, tuple(result["layout"].values())].append(result)
        if mode == "sync":
            baselines[work].append(result)
    rows = []
    for (work, mode, _layout), group in groups.items():
        profile, lengths, slow = work
        layout = group[0]["layout"]
        is_split = mode not in ("sync", "colocate_async")
        split = f"{layout['rollout_gpus']}:{layout['trainer_gpus']}" if is_split else "all"
        row: dict[str, Any] = {
            "profile": Path(profile).stem,
            **({"lengths": Path(lengths).name} if lengths else {}),
            **({"slow replicas": slow} if slow else {}),
            "mode": mode,
            "split": split,
            "slots": layout["slots"],
            "step s": fmean(fmean(result["step_s"]) for result in group),
            "gain": _describe_gain(baselines[work], group),
        }
        for pool in ("rollout", "trainer", "reward"):
            row[pool] = _average(group, lambda result, pool=pool: result["busy"].get(pool))
        if group[0]["mean_age"] is not None:
            row["tokens/s"] = fmean(result["tokens_per_s"] for result in group)
            age = format_decimal(fmean(result["mean_age"] for result in group))
            row["age"] = f"{age} (max {max(result['largest_age'] for result in group)})"
        row["mixed"] = _average(group, lambda result: result["mixed_share"])
        if "error" in group[0]:
            # A seed counts once, as in the step beside it, however many steps it has.
            row["planner s"] = fmean(fmean(result["predicted_step_s"]) for result in group)
            row["error"] = f"{format_points(fmean(result['error'] for result in group))} %"
        if "limit_s" in group[0]:
            row["of limit"] = _average(group, lambda r: r["limit_s"] / fmean(r["step_s"]))
        row["counts"] = group[0]["control_scale"]
        row["control s"] = fmean(fmean(result["control_s"]) for result in group)
        row["valid"] = "yes" if all(result["valid"] for result in group) else "NO"
        rows.append(row)
    return rows


def compute_gain(sync: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, Any] | None:
    """How many times faster ``other`` is, over the seeds that both have; None without one."""
    baselines = {result["seed"]: _number_steps(result) for result in sync}
    pairs = []
    for result in other:
        baseline, steps = baselines.get(result["seed"], {}), _number_steps(result)
        if common := sorted(set(baseline) & set(steps)):
            pairs.append(
                tuple(fmean(found[step] for step in common) for found in (baseline, steps))
            )
    if not pairs:
        return None
    before, after = map(list, zip(*pairs, strict=True))
    return dict(estimate_ratio(before, after, paired=True))


def make_markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table in Markdown."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for row in rows:
        cells = [_format(row.get(column)) for column in columns]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _number_steps(result: dict[str, Any]) -> dict[int, float]:
    """Seconds of each measured step."""
    return dict(enumerate(result["step_s"], result["first_step"]))


def _describe_gain(sync: list[dict[str, Any]], group: list[dict[str, Any]]) -> str:
    gain = compute_gain(sync, group)
    return "-" if gain is None else format_ratio(gain)


def _average(group: list[dict[str, Any]], read: Any) -> str:
    values = [value for result in group if (value := read(result)) is not None]
    return format_percent(fmean(values), 0) if values else "-"


def _format(value: Any) -> str:
    if isinstance(value, float):
        return format_decimal(value, 0 if value >= 100 else 2)
    return "-" if value is None else str(value)
