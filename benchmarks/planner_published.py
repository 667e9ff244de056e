"""Compares the planner with published tables that it was not fitted to.

``python -m benchmarks.planner_published [--output results.json]``, from the repository's folder; a
minute of one core.

Of each table only the `sync` rows are used: their sampling seconds set the decoding speed, their
other seconds the trainer's. How training scales with GPUs comes from verl's three colocated rows at
32, 64 and 128 H20 (:data:`.published_steps.SCALING_ROWS`), the only published ones. Every other
row is predicted.

What is not published is assumed, as the profiles' sources say: lengths, above all. Each row is
therefore predicted again with other assumptions, each fitted anew (:data:`ASSUMPTIONS`). Rows of
verl's `fully_async` mix weights within a trajectory, stream mini-batches and recompute no
log-probs; the nearest schedule here is in_flight at staleness 1 without log-probs.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import typer

from benchmarks.common import ReportOption, print_table, write_report
from benchmarks.published_steps import LEFT_OUT, ROWS, SCALING_ROWS, Row
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.planner.measurements import fit_decoding
from verl_pipeline.planner.plan import Plan, Planner
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.profile_reader import load_profile

RESULTS = Path("benchmarks/results/planner_published.json")
# Other assumptions where nothing is published: a lighter or heavier tail, running sequences that
# slow a decoding step by a third or three times as much.
ASSUMPTIONS = {
    "sigma less 0.3": {"sigma": -0.3, "slope": 1.0},
    "sigma plus 0.3": {"sigma": 0.3, "slope": 1.0},
    "a third of the part of a sequence": {"sigma": 0.0, "slope": 1 / 3},
    "three times the part of a sequence": {"sigma": 0.0, "slope": 3.0},
}


def fit_scaling() -> float:
    """The exponent of training speed in GPUs, by least squares of the logarithms."""
    x = np.log(list(SCALING_ROWS))
    y = np.log(list(SCALING_ROWS.values()))
    return -float(np.polyfit(x, y, 1)[0])


def make_fitted_profile(row: Row, scaling: float) -> Profile:
    """The profile with everything that the `sync` row tells."""
    profile = load_profile(Path(row.profile))
    training = dataclasses.replace(profile.training, scaling=scaling)
    if not row.update_s:
        return dataclasses.replace(profile, training=training)
    changes = dict(row.changes)
    limit = changes.get("response_tokens")
    if isinstance(limit, float):
        changes["response_tokens"] = dataclasses.replace(
            profile.sampling.response_tokens, cap=limit
        )
    profile = dataclasses.replace(
        profile,
        gpus=row.gpus,
        sampling=dataclasses.replace(profile.sampling, **changes),
        training=dataclasses.replace(
            training, gpus=row.gpus, update_s=row.update_s, log_prob_s=row.log_prob_s
        ),
        weights=dataclasses.replace(profile.weights, switch_s=row.switch_s),
    )
    return fit_decoding(profile, row.sampling_s)


def vary(profile: Profile, sigma: float, slope: float) -> Profile:
    """The profile with a lighter or heavier tail and another cost of running sequences."""
    sampling = profile.sampling
    lengths = sampling.response_tokens
    return dataclasses.replace(
        profile,
        sampling=dataclasses.replace(
            sampling,
            response_tokens=dataclasses.replace(lengths, sigma=lengths.sigma + sigma),
            decode_per_sequence_s=sampling.decode_per_sequence_s * slope,
        ),
    )


def predict_gain(profile: Profile, row: Row, seeds: int) -> tuple[Plan, Plan]:
    """`sync` and the row's plan."""
    sync = Planner(profile, seeds=seeds).sync
    if row.streams:
        training = dataclasses.replace(profile.training, log_prob_s=0.0)
        profile = dataclasses.replace(profile, training=training)
    planner = Planner(profile, seeds=seeds)
    return sync, planner.measure(row.schedule, planner.make_layout(row.split), row.split)


def predict(row: Row, scaling: float) -> dict[str, Any]:
    """Predict a row from its `sync` row; gains and errors."""
    profile = make_fitted_profile(row, scaling)
    sync, plan = predict_gain(profile, row, 3)
    published, predicted = row.sync_s / row.step_s, sync.step_s / plan.step_s
    ideal = dataclasses.replace(
        profile, training=dataclasses.replace(profile.training, scaling=1.0)
    )
    _sync, perfect = predict_gain(ideal, row, 1)
    gains = {}
    for name, change in ASSUMPTIONS.items():
        other_sync, other = predict_gain(
            fit_decoding(vary(profile, **change), row.sampling_s), row, 1
        )
        gains[name] = other_sync.step_s / other.step_s
    return {
        "row": row.name,
        "source": row.source,
        "schedule": str(row.schedule),
        "nearest_schedule_only": row.streams,
        "published": {"sync_s": row.sync_s, "step_s": row.step_s, "gain": published},
        "fitted_sync_s": sync.step_s,
        "predicted": {
            "step_s": plan.step_s,
            "gain": predicted,
            "gain_with_perfect_scaling": sync.step_s / perfect.step_s,
            "gain_with_other_assumptions": gains,
        },
        "same_sign": (published > 1) == (predicted > 1),
        "ratio_error": predicted / published - 1,
        "limit": plan.to_json()["limit"],
        "shares": plan.shares,
    }


def format_range(values: Iterable[float]) -> str:
    """The smallest and largest of some gains."""
    ordered = sorted(values)
    return f"{format_decimal(ordered[0], 2)} to {format_decimal(ordered[-1], 2)}"


def main(output: ReportOption = RESULTS) -> None:
    """Predict published rows from the sync rows beside them, and print the errors."""
    scaling = fit_scaling()
    results = [predict(row, scaling) for row in ROWS]
    errors = [abs(math.log(1 + result["ratio_error"])) for result in results]
    summary = {
        "training_scaling": scaling,
        "same_sign": sum(result["same_sign"] for result in results),
        "rows": len(results),
        "median_factor": math.exp(statistics.median(errors)),
        "largest_factor": math.exp(max(errors)),
        "left_out": LEFT_OUT,
    }
    print_table(
        [
            {
                "row": result["row"],
                "published s": result["published"]["step_s"],
                "predicted s": result["predicted"]["step_s"],
                "published gain": result["published"]["gain"],
                "predicted gain": result["predicted"]["gain"],
                "perfect scaling": result["predicted"]["gain_with_perfect_scaling"],
                "other assumptions": format_range(
                    result["predicted"]["gain_with_other_assumptions"].values()
                ),
                "error, %": 100 * result["ratio_error"],
            }
            for result in results
        ],
        [
            "row",
            "published s",
            "predicted s",
            "published gain",
            "predicted gain",
            "perfect scaling",
            "other assumptions",
            "error, %",
        ],
    )
    typer.echo(
        f"same sign: {summary['same_sign']} of {summary['rows']}; the gain is off by a factor of "
        f"{format_decimal(summary['median_factor'], 2)} in the median, "
        f"{format_decimal(summary['largest_factor'], 2)} at most; "
        f"training speed grows with GPUs to the power {format_decimal(scaling, 2)}"
    )
    write_report(output, "planner_published", {}, {"summary": summary, "rows": results})


if __name__ == "__main__":
    typer.run(main)
