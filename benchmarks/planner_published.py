"""Compares the planner with published tables that it was not fitted to.

``python -m benchmarks.planner_published [--output results.json]``, from the repository's folder; a
minute of one core.

Of each table only the `sync` rows are used: their sampling seconds set the decoding speed, their
other seconds the trainer's. How training scales with GPUs comes from verl's three colocated rows at
32, 64 and 128 H20 (:data:`SCALING_ROWS`), the only published ones. Every other row is predicted.

What is not published is assumed, as the profiles' sources say: lengths, above all. Each row is
therefore predicted again with other assumptions, each fitted anew (:data:`ASSUMPTIONS`). Rows of
verl's `fully_async` mix weights within a trajectory, stream mini-batches and recompute no
log-probs; the nearest schedule here is in_flight at staleness 1 without log-probs.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from benchmarks.common import ReportOption, print_table, write_report
from verl_pipeline.planner.measurements import fit_decoding
from verl_pipeline.planner.plan import Plan, Planner
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.profile_reader import load_profile
from verl_pipeline.planner.schedules import Schedule
from verl_pipeline.planner.splits import Split

RESULTS = Path("benchmarks/results/planner_published.json")
BLOG = "DeepCoder blog, figure of seconds per iteration, read by pixel height"
ONE_STEP_OFF = "verl docs/advance/one_step_off.md"
FULLY_ASYNC = "verl docs/advance/fully_async.md"
# GPUs: seconds of update_actor and old_log_prob of Qwen2.5-Math-7B, colocated sync, H20.
SCALING_ROWS = {32: 269.80 + 107.71, 64: 133.41 + 70.26, 128: 113.81 + 53.92}


@dataclass(frozen=True)
class Row:
    """A published pair of rows, `sync` and another, with what the fit takes from the first.

    Attributes:
        profile: that has the rest.
        sampling_s: of the `sync` row.
        update_s, log_prob_s, switch_s: of the `sync` row.
        sync_s, step_s: published seconds of a step: `sync`, and the row that is predicted.
        changes: of the profile's sampling.
        streams: whether the row is of fully_async, which recomputes no log-probs.
    """

    name: str
    source: str
    profile: str
    schedule: Schedule
    split: Split
    sync_s: float
    step_s: float
    sampling_s: float
    # 0: the profile has the trainer's seconds of this very row.
    update_s: float = 0.0
    log_prob_s: float = 0.0
    switch_s: float = 0.0
    changes: tuple[tuple[str, Any], ...] = ()
    gpus: int = 0
    streams: bool = False


ONE_OFF = Schedule("one_step_off", 1)
STREAM = Schedule("in_flight", 1)


def list_fully_async() -> list[Row]:
    """verl's 7B rows: colocated sync and fully_async with half of the GPUs for each pool."""
    published = {
        32: (790.10, 357.41, 107.71, 269.80, 294.77),
        64: (365.28, 150.72, 70.26, 133.41, 189.26),
        128: (356.30, 177.85, 53.92, 113.81, 150.63),
    }
    rows = []
    for gpus, (sync, sampling, log_prob, update, step) in published.items():
        rest = sync - sampling - log_prob - update
        # Training and mini-batches of 512 prompts x 16, limit 28K.
        lengths = load_profile(Path("verl_dapo_7b_16xh20")).sampling.response_tokens
        changes = (("samples", 16), ("response_tokens", dataclasses.replace(lengths, cap=28672.0)))
        split = Split(gpus // 16, 8, gpus // 16, 8)
        rows.append(
            Row(
                f"7B, {gpus} H20, fully_async {gpus // 2}:{gpus // 2}",
                FULLY_ASYNC,
                "verl_dapo_7b_16xh20",
                STREAM,
                split,
                sync,
                step,
                sampling,
                update + rest,
                log_prob,
                0.0,
                changes,
                gpus,
                True,
            )
        )
    return rows


ROWS = [
    Row(
        "DeepCoder 1.5B maths, one-off 4:4",
        BLOG,
        "deepcoder_math_8xa100",
        ONE_OFF,
        Split(1, 4, 1, 4),
        755,
        540,
        500,
    ),
    Row(
        "DeepCoder 1.5B code, one-off 4:4",
        BLOG,
        "deepcoder_code_8xa100",
        ONE_OFF,
        Split(1, 4, 1, 4),
        880,
        450,
        410,
    ),
    Row(
        "7B DAPO FSDP2 20K, one_step_off 4:12",
        ONE_STEP_OFF,
        "verl_dapo_7b_16xh20",
        ONE_OFF,
        Split(2, 2, 2, 6),
        749,
        520,
        247,
    ),
    Row(
        "7B DAPO Megatron 8K, one_step_off 4:12",
        ONE_STEP_OFF,
        "verl_dapo_7b_16xh20",
        ONE_OFF,
        Split(2, 2, 2, 6),
        699,
        566,
        162,
        344 + 699 - 207 - 119 - 344,
        119,
        207 - 162,
        (("response_tokens", 8192.0),),
        16,
    ),
    *list_fully_async(),
    Row(
        "30B-A3B, 128 H20, fully_async 96:32",
        FULLY_ASYNC,
        "moe_30b_128xh20",
        STREAM,
        Split(12, 8, 4, 8),
        497.89,
        282.75,
        332,
        streams=True,
    ),
]
# Other assumptions where nothing is published: a lighter or heavier tail, running sequences that
# slow a decoding step by a third or three times as much.
ASSUMPTIONS = {
    "sigma less 0.3": {"sigma": -0.3, "slope": 1.0},
    "sigma plus 0.3": {"sigma": 0.3, "slope": 1.0},
    "a third of the part of a sequence": {"sigma": 0.0, "slope": 1 / 3},
    "three times the part of a sequence": {"sigma": 0.0, "slope": 3.0},
}
# Published gains that no prediction is made for, and why.
LEFT_OUT = {
    "NeMo-RL 1-step-off against on-policy (1.73, 1.35, 1.26; 1.60, 1.24, 0.73)": (
        "only step totals are published, no seconds of sampling and training to fit to"
    ),
    "verl v1 Qwen3.5-35B-A3B, sync against separate_async (1.62)": "only totals are published",
    "AReaL boba2 (2.77, 2.27)": "only totals are published",
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
    return f"{ordered[0]:.2f} to {ordered[-1]:.2f}"


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
        f"{summary['median_factor']:.2f} in the median, {summary['largest_factor']:.2f} at most; "
        f"training speed grows with GPUs to the power {scaling:.2f}"
    )
    write_report(output, "planner_published", {}, {"summary": summary, "rows": results})


if __name__ == "__main__":
    typer.run(main)
