"""What choosing prompts is worth: held-out score against generated trajectories.

``python -m benchmarks.selection simulate`` compares the selectors and DAPO's refill in a made-up
world (:mod:`benchmarks.selection_world` has its assumptions); about 30 minutes on one core.
``python -m benchmarks.selection train CASE`` trains a model with each selector
(:mod:`benchmarks.selection_training`): ``quickstart`` takes hours on two cores, ``tiny`` half an
hour. From the repository's folder.

Invariants:
* Compared is what the same number of *generated* trajectories bought, those that were thrown away
  included; seeds are paired.
* The report is written after every run, and the same command goes on where it stopped.
* Nothing is chosen by the held-out scores.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common import (
    ReportOption,
    estimate_ratio,
    format_ratio,
    print_table,
    write_report,
)
from benchmarks.heldout_runs import average_over_runs, read_earlier_runs
from benchmarks.selection_training import CASES, UNIFORM, SelectionRun, train
from benchmarks.selection_world import (
    Course,
    Shape,
    World,
    find_cost,
    simulate_refill,
    simulate_selector,
)
from verl_pipeline.evaluation.estimators import Interval, estimate_difference, estimate_mean
from verl_pipeline.number_formats import format_interval

REFILL = "DAPO's refill"
METHODS = (UNIFORM, "learnability", "similar", REFILL)
# Each differs from the first in one assumption.
WORLDS = {
    "100,000 prompts": Shape(),
    "steps of a fixed size": Shape(growth=0.5),
    "5,000 prompts, eight epochs": Shape(prompts=5_000),
    "half have a signal": Shape(spread=1.0),
}
# About so many points of a simulated course are kept, and the last.
KEPT_POINTS = 100

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


def simulate(world: str, method: str, seed: int, budget: int) -> dict[str, Any]:
    """One run of the simulation."""
    made = World(WORLDS[world], seed)
    before = made.score
    if method == REFILL:
        course = simulate_refill(made, budget)
    else:
        course = simulate_selector(made, method, budget)
    return {
        "world": world,
        "method": method,
        "seed": seed,
        "before": before,
        "signal": statistics.fmean(course.signal),
        "metrics": course.metrics,
        **_thin(course),
    }


def _thin(course: Course) -> dict[str, list]:
    step = max(1, len(course.scores) // KEPT_POINTS)
    places = sorted({*range(0, len(course.scores), step), len(course.scores) - 1})
    return {
        "generated": [course.generated[place] for place in places],
        "scores": [course.scores[place] for place in places],
    }


def compare_methods(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each world and method, over the seeds that all methods of the world have run.

    Returns:
        ``world``, ``method``, ``seeds``; means of ``signal``, ``coverage`` and ``effective_share``;
        ``gain`` of the held-out score, and ``against_uniform`` (95 % intervals over seeds);
        ``rollouts``: trajectories until uniform's last score, by uniform's own (a ratio with its
        interval), None if a seed never gets there.
    """
    rows = []
    for world in dict.fromkeys(one["world"] for one in found):
        by_method = {
            method: {
                one["seed"]: one
                for one in found
                if one["world"] == world and one["method"] == method
            }
            for method in METHODS
        }
        seeds = sorted(set.intersection(*(set(runs) for runs in by_method.values())))
        for method in METHODS if seeds else ():
            pairs = [(by_method[UNIFORM][seed], by_method[method][seed]) for seed in seeds]
            rows.append({"world": world, "method": method, **_compare(pairs)})
    return rows


def _compare(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, Any]:
    """Runs of a method beside those of ``uniform`` with the same seeds."""
    own = [one for _uniform, one in pairs]
    gains = [one["scores"][-1] - one["before"] for one in own]
    differences = [one["scores"][-1] - uniform["scores"][-1] for uniform, one in pairs]
    row: dict[str, Any] = {
        "seeds": len(pairs),
        "signal": statistics.fmean(one["signal"] for one in own),
        "gain": estimate_mean(gains),
        "against_uniform": estimate_mean(differences),
    }
    for name in ("coverage", "effective_share"):
        row[name] = statistics.fmean(one["metrics"][f"curriculum/{name}"] for one in own)
    costs = [
        find_cost(one["generated"], one["scores"], uniform["scores"][-1]) for uniform, one in pairs
    ]
    spent = [float(uniform["generated"][-1]) for uniform, _one in pairs]
    reached = [cost for cost in costs if cost is not None]
    row["rollouts"] = (
        estimate_ratio(reached, spent, paired=True) if len(reached) == len(costs) else None
    )
    return row


def compare_selectors(case: str, measured: Sequence[SelectionRun]) -> list[dict[str, Any]]:
    """One row for each selector of a case, over the seeds that every selector has run.

    Returns:
        As :func:`compare_methods`; ``against_uniform`` is paired by problem, over the mean of the
        seeds, and ``gain_by_seed`` has the gain of each seed. Empty if there is no such seed.
    """
    by_name = {
        name: {run.seed: run for run in measured if run.selector == name}
        for name in CASES[case].selectors
    }
    seeds = sorted(set.intersection(*(set(found) for found in by_name.values())))
    rows = []
    for name in by_name if seeds else ():
        chosen = [by_name[name][seed] for seed in seeds]
        uniform = [by_name[UNIFORM][seed] for seed in seeds]
        last = str(max(map(int, chosen[0].scores)))
        after = average_over_runs([run.scores[last] for run in chosen])
        before = average_over_runs([run.scores["0"] for run in chosen])
        courses = [[_as_course(case, run) for run in some] for some in (uniform, chosen)]
        pairs = list(zip(*courses, strict=True))
        row = {"selector": name, **_compare(pairs)}
        row["gain"] = estimate_difference(before, after)
        base = average_over_runs([run.scores[last] for run in uniform])
        row["against_uniform"] = estimate_difference(base, after)
        row["gain_by_seed"] = [one["scores"][-1] - one["before"] for _uniform, one in pairs]
        row["seconds"] = statistics.fmean(run.seconds for run in chosen)
        rows.append(row)
    return rows


def _as_course(case: str, run: SelectionRun) -> dict[str, Any]:
    points = sorted(map(int, run.scores))
    scores = [statistics.fmean(run.scores[str(point)].values()) for point in points]
    steps = list(run.steps.values())
    return {
        "before": scores[0],
        "generated": [point * CASES[case].trajectories for point in points[1:]],
        "scores": scores[1:],
        "signal": statistics.fmean(step["curriculum/signal_share"] for step in steps),
        "metrics": steps[-1],
    }


def _show(rows: Sequence[Mapping[str, Any]], first: Sequence[str]) -> None:
    def show(value: Any) -> Any:
        if isinstance(value, Interval):
            return format_interval(value.value, value.low, value.high, 3, sign=True)
        return format_ratio(value) if isinstance(value, Mapping) else value

    columns = ["seeds", "signal", "coverage", "effective_share", "gain", "against_uniform"]
    print_table(
        [{name: show(value) for name, value in row.items()} for row in rows],
        [*first, *columns, "rollouts"],
    )


def _as_plain(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            name: asdict(value) if isinstance(value, Interval) else value
            for name, value in row.items()
        }
        for row in rows
    ]


@app.command("simulate")
def run_simulation(
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method in each world.")] = 5,
    steps: Annotated[int, typer.Option(min=2, help="Batches that uniform generates.")] = 300,
    most_runs: Annotated[
        int | None, typer.Option(min=1, help="Runs of this call; by default all.")
    ] = None,
    output: ReportOption = Path("benchmarks/results/selection_simulated.json"),
) -> None:
    """Compare the selectors and DAPO's refill in the made-up worlds."""
    arguments = {"steps": steps}
    found = read_earlier_runs(output, arguments)
    done = {(one["world"], one["method"], one["seed"]) for one in found}
    wanted = [
        (world, method, seed)
        for seed in range(1, seeds + 1)
        for world in WORLDS
        for method in METHODS
    ]
    missing = [entry for entry in wanted if entry not in done]
    for world, method, seed in missing[:most_runs]:
        shape = WORLDS[world]
        found.append(simulate(world, method, seed, steps * shape.batch * shape.members))
        results = {"methods": _as_plain(compare_methods(found)), "runs": found}
        write_report(output, "selection", arguments, results)
    _show(compare_methods(found), ["world", "method"])


def _check_case(name: str) -> str:
    if name not in CASES:
        raise typer.BadParameter(f"{name}: must be one of {', '.join(CASES)}")
    return name


@app.command("train")
def run_trainings(
    case: Annotated[str, typer.Argument(help="quickstart or tiny.", callback=_check_case)],
    seeds: Annotated[int, typer.Option(min=1, help="Trainings with each selector.")] = 3,
    updates: Annotated[int, typer.Option(min=1, help="Updates of each training.")] = 40,
    every: Annotated[int, typer.Option(min=1, help="Updates between two scores.")] = 5,
    most_runs: Annotated[
        int | None, typer.Option(min=1, help="Trainings of this call; by default all.")
    ] = None,
    output: ReportOption = Path("benchmarks/results/selection_trained.json"),
) -> None:
    """Train a model with each selector."""
    arguments = {"case": case, "updates": updates, "every": every}
    measured = [SelectionRun(**run) for run in read_earlier_runs(output, arguments)]
    done = {(run.seed, run.selector) for run in measured}
    wanted = [(seed, name) for seed in range(1, seeds + 1) for name in CASES[case].selectors]
    for seed, name in [entry for entry in wanted if entry not in done][:most_runs]:
        measured.append(train(CASES[case], name, seed, updates, every))
        results = {
            "selectors": _as_plain(compare_selectors(case, measured)),
            "runs": [asdict(run) for run in measured],
        }
        write_report(output, "selection", arguments, results)
    _show(compare_selectors(case, measured), ["selector"])


if __name__ == "__main__":
    app()
