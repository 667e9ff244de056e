"""The benchmark of selectors: its made-up world, and what it compares."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks import selection, selection_tiny
from benchmarks.heldout_runs import read_earlier_runs
from benchmarks.selection_training import (
    CASES,
    SelectionRun,
    choose_overrides,
    choose_problems,
    train,
)
from benchmarks.selection_world import (
    Shape,
    World,
    find_cost,
    simulate_refill,
    simulate_selector,
)
from verl_pipeline.curriculum import load_selector
from verl_pipeline.evaluation.estimators import Interval

SMALL = Shape(prompts=600, batch=16, members=4, rate=0.05)
BUDGET = 30 * 16 * 4


def test_a_world_is_the_same_for_all_and_another_for_another_seed():
    one, same, other = World(SMALL, 1), World(SMALL, 1), World(SMALL, 2)
    rows = np.arange(10)
    assert one.score == same.score != other.score
    assert np.array_equal(one.sample(3, rows), same.sample(3, rows))
    assert not np.array_equal(one.sample(3, rows), one.sample(4, rows))


def test_only_groups_with_a_signal_teach_and_repeated_ones_less():
    world = World(SMALL, 1)
    before = world.score
    rows = np.arange(16)
    world.train(rows, np.ones((16, 4)))
    assert world.score == before
    mixed = np.tile([0.0, 1.0, 0.0, 1.0], (16, 1))
    world.train(rows, mixed)
    first = world.score - before
    for _again in range(8):
        world.train(rows, mixed)
    middle = world.score
    world.train(rows, mixed)
    assert 0 < world.score - middle < first


@pytest.mark.parametrize("method", selection.METHODS)
def test_every_method_pays_for_all_that_it_generates(method):
    world = World(SMALL, 1)
    if method == selection.REFILL:
        course = simulate_refill(world, BUDGET)
        assert len(course.scores) < 30  # an update takes more than a batch
    else:
        course = simulate_selector(world, method, BUDGET)
        assert len(course.scores) == 30
    assert course.generated[-1] == BUDGET
    assert course.generated == sorted(course.generated)
    assert course.scores[-1] > course.scores[0]
    assert 0 < np.mean(course.signal) < 1


def test_a_refill_trains_full_batches():
    taught = []

    class Watched(World):
        def train(self, rows, rewards):
            taught.append((len(rows), bool((np.ptp(rewards, axis=1) > 0).all())))
            super().train(rows, rewards)

    simulate_refill(Watched(SMALL, 1), BUDGET)
    assert all(has for _rows, has in taught) and {rows for rows, _has in taught[:-1]} == {16}


def make_course(world, method, seed, scores):
    return {
        "world": world,
        "method": method,
        "seed": seed,
        "before": 0.1,
        "signal": 0.5,
        "metrics": {"curriculum/coverage": 0.5, "curriculum/effective_share": 0.9},
        "generated": [100, 200, 300, 400],
        "scores": scores,
    }


def test_methods_are_compared_at_equal_trajectories_and_paired_seeds():
    slow, fast, never = [0.1, 0.2, 0.3, 0.4], [0.2, 0.4, 0.5, 0.6], [0.1, 0.1, 0.1, 0.2]
    scores = {"uniform": slow, "learnability": fast, "similar": slow, "DAPO's refill": never}
    found = [
        make_course("w", method, seed, scores[method])
        for seed in (1, 2)
        for method in selection.METHODS
    ]
    rows = selection.compare_methods([*found, make_course("w", "uniform", 3, slow)])
    assert [row["seeds"] for row in rows] == [2] * 4  # seed 3 has no partner
    by_method = {row["method"]: row for row in rows}
    assert by_method["uniform"]["rollouts"]["ratio"] == pytest.approx(1.0)
    assert by_method["learnability"]["rollouts"]["ratio"] == pytest.approx(0.5)
    assert by_method["learnability"]["against_uniform"].value == pytest.approx(0.2)
    assert by_method["DAPO's refill"]["rollouts"] is None
    assert selection.compare_methods(found[:3]) == []
    assert find_cost([1, 2], [0.1, 0.2], 0.3) is None


def make_run(selector, seed, gain):
    scores = {
        str(step): {"one": 0.2 + gain * step / 4, "two": 0.4 + gain * step / 4}
        for step in (0, 2, 4)
    }
    metrics = {
        "curriculum/signal_share": 0.5,
        "curriculum/coverage": 0.5,
        "curriculum/effective_share": 1.0,
    }
    return SelectionRun(selector, seed, scores, {"4": metrics}, 10.0, "c")


def test_trainings_are_compared_over_the_seeds_that_all_have():
    selectors = CASES["tiny"].selectors
    runs = [
        make_run(name, seed, 0.2 if name == "similar" else 0.1)
        for name in selectors
        for seed in (1, 2)
    ]
    rows = selection.compare_selectors("tiny", [*runs, make_run("uniform", 3, 0.9)])
    similar = rows[list(selectors).index("similar")]
    assert similar["seeds"] == 2 and similar["gain_by_seed"] == pytest.approx([0.2, 0.2])
    assert isinstance(similar["gain"], Interval) and similar["gain"].value == pytest.approx(0.2)
    assert similar["against_uniform"].value == pytest.approx(0.1)
    assert similar["rollouts"]["ratio"] == pytest.approx(0.5)
    assert rows[0]["rollouts"]["ratio"] == pytest.approx(1.0)


def test_the_harder_corpus_is_mostly_what_the_model_cannot_solve():
    problems = choose_problems()
    train = [one.difficulty for one in problems if one.split == "train"]
    assert train.count("easy") / len(train) < 0.3
    assert {one.difficulty for one in problems if one.split == "heldout"} == {"easy", "medium"}


@pytest.mark.parametrize("name", CASES)
def test_a_training_differs_in_the_selector_only(tmp_path, monkeypatch, name):
    monkeypatch.setattr("benchmarks.selection_training.prepare_model", lambda: tmp_path / "model")
    case = CASES[name]
    sets = [set(choose_overrides(case, tmp_path, one, 1, 8, 4)) for one in case.selectors]
    common = set.intersection(*sets)
    for entry, given in zip(case.selectors.values(), sets, strict=True):
        (own,) = given - common
        assert own.endswith(f"curriculum.selector={entry}")
        load_selector(yaml.safe_load(entry))


def test_most_tiny_prompts_teach_nothing_and_no_held_out_one_is_trained(tmp_path):
    selection_tiny.write_data(tmp_path)
    train, heldout = (
        pq.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in ("train", "heldout")
    )
    needs = [int(row["reward_model"]["ground_truth"].split()[1]) for row in train]
    learnable = [need in selection_tiny.NEEDS for need in needs]
    assert 0.25 < np.mean(learnable) < 0.35
    letters = {
        row["reward_model"]["ground_truth"]
        for row, may in zip(train, learnable, strict=True)
        if may
    }
    assert letters == {row["reward_model"]["ground_truth"] for row in heldout}
    texts = [{row["prompt"][0]["content"] for row in rows} for rows in (train, heldout)]
    assert not texts[0] & texts[1]
    best = "a" * 16
    assert selection_tiny.compute_score("", best, "a 4") == 1.0
    assert selection_tiny.compute_score("", best, f"a {selection_tiny.HOPELESS}") == 0.0


@pytest.mark.slow
def test_a_training_runs_and_is_scored_on_its_way(monkeypatch):
    """In a run's own processes, on whose path this folder is not."""
    monkeypatch.delenv("PYTHONPATH")
    run = train(CASES["tiny"], "similar", seed=1, updates=2, every=1)
    assert [*run.scores] == ["0", "1", "2"] and [*run.steps] == ["1", "2"]
    assert all(len(found) == selection_tiny.HELD_OUT for found in run.scores.values())
    assert "curriculum/signal_share" in run.steps["2"]


def test_a_report_of_other_arguments_is_not_continued(tmp_path):
    assert read_earlier_runs(tmp_path / "none.json", {}) == []
    path = tmp_path / "report.json"
    path.write_text('{"arguments": {"steps": 3}, "results": {"runs": [{"seed": 1}]}}')
    assert read_earlier_runs(path, {"steps": 3}) == [{"seed": 1}]
    assert read_earlier_runs(path, {"steps": 4}) == []
