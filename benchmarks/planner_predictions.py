"""Writes down what the planner predicts for every profile of the package, schedule by schedule.

``python -m benchmarks.planner_predictions [--output results.json]``, from the repository's folder;
several minutes of one core. Nothing is measured. The results in the repository were written down
before `rolling` and `in_flight` were built, to be tested then; :mod:`benchmarks.emulated_cluster`
is the test.
"""

from pathlib import Path
from typing import Any

import typer

from benchmarks.common import ReportOption, print_table, write_report
from verl_pipeline.planner.answer import make_answer
from verl_pipeline.planner.plan import Planner, find_plans
from verl_pipeline.planner.profile_reader import list_profiles, load_profile
from verl_pipeline.planner.splits import list_splits

RESULTS = Path("benchmarks/results/planner_predictions.json")
SEEDS = 3


def predict_profile(name: str) -> dict[str, Any]:
    """The best plan of every schedule, up to the staleness that gains nothing more; the answer."""
    profile = load_profile(Path(name))
    planner = Planner(profile, SEEDS)
    plans = find_plans(planner, list_splits(profile))
    answer = make_answer(profile, planner.sync, plans)
    return {
        "profile": name,
        "steps": planner.steps,
        "warm_up": planner.warm_up,
        "seeds": planner.seeds,
        "answer": answer.sentence,
        "verdict": answer.verdict,
        "plans": [plan.to_json() for plan in (planner.sync, *plans)],
    }


def count_trajectories(name: str) -> int:
    """Trajectories of a batch: what a simulation costs."""
    return load_profile(Path(name)).sampling.trajectories


def main(output: ReportOption = RESULTS) -> None:
    """Predict every profile of the package and print the gains."""
    results: list[dict[str, Any]] = []
    for name in sorted(list_profiles(), key=count_trajectories):
        typer.echo(f"{name} ...", err=True)
        results.append(predict_profile(name))
        write_report(output, "planner_predictions", {"seeds": SEEDS}, results)
    rows = []
    for result in results:
        row: dict[str, Any] = {"profile": result["profile"]}
        for plan in result["plans"]:
            label = {"drained": "d", "rolling": "r", "in_flight": "f"}.get(plan["schedule"])
            if label:
                row[f"{label}{plan['staleness']}"] = plan["gain"]["mean"]
        rows.append(row)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    print_table(rows, ["profile", *sorted(columns[1:])])


if __name__ == "__main__":
    typer.run(main)
