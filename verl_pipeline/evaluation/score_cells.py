"""Scores and warnings as the console shows them."""

from typing import Any

from verl_pipeline.evaluation.missing_answers import MARK


def format_score(interval: dict[str, Any] | None) -> str:
    """Return a score as ``12.3 % [10.1, 14.9]``."""
    if interval is None:
        return "-"
    text = f"{100 * interval['value']:.1f} %"
    return (
        text
        if interval["low"] is None
        else f"{text} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"
    )


def format_main_score(task: dict[str, Any]) -> str:
    """Return pass@1, and the mean reward if it is another number."""
    reward = task.get("mean_reward")
    if reward is None:
        return format_score(task.get("pass@1"))
    bounds = "" if reward["low"] is None else f" [{reward['low']:.3f}, {reward['high']:.3f}]"
    text = f"mean reward {reward['value']:.3f}{bounds}"
    return f"{format_score(task['pass@1'])}, {text}" if task["pass@1"] else text


def get_main_score(task: dict[str, Any]) -> dict[str, Any] | None:
    """Return pass@1, or the mean reward if not all rewards are 0 or 1."""
    return task.get("pass@1") or task.get("mean_reward")


def format_comparison(row: dict[str, Any]) -> tuple[str, str, str]:
    """Return the cells before, after and difference."""
    if row["measure"] == "pass@1":
        return (
            f"{row['before']:.1%}",
            f"{row['after']:.1%}",
            f"{100 * row['value']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}] points",
        )
    before, after = (f"{row['measure']} {row[side]:.3f}" for side in ("before", "after"))
    bounds = "" if row["low"] is None else f" [{row['low']:+.3f}, {row['high']:+.3f}]"
    return before, after, f"{row['value']:+.3f}{bounds}"


def choose_style(warning: str) -> str:
    """Return the style of a warning on the console."""
    return "bold red" if MARK in warning else "yellow"
