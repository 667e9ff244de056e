"""Runs beside one another: names that differ, ratios, seconds that sum to the step."""

import math
import shutil

import pytest

from verl_pipeline.report.comparison import compare_figures, compare_seconds, name_views, show_row
from verl_pipeline.report.run_view import STEP_S, make_view
from verl_pipeline.telemetry.run_folder import load_run


def view(folder, name=None):
    run = load_run(folder)
    return make_view(run, name or run.header.run_name)


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (["a", "b"], ["a", "b"]),
        (["a/checkpoints", "b/checkpoints"], ["a", "b"]),
        (["x/a/run", "y/a/run"], ["x", "y"]),
        (["x/a", "y/b"], ["x/a", "y/b"]),
    ],
)
def test_runs_of_one_name_are_called_by_what_tells_their_folders(runs, tmp_path, places, names):
    for place in places:
        shutil.copytree(runs["early"], tmp_path / place)
    views = [view(tmp_path / place) for place in places]
    assert [one.name for one in name_views(views)] == names


def test_one_run_given_twice_has_two_names_and_other_names_stay(runs):
    views = [view(runs["early"]), view(runs["early"]), view(runs["early"], "mine")]
    names = [one.name for one in name_views(views)]
    assert len(set(names)) == 3 and names[2] == "mine"


def test_the_seconds_of_each_pool_sum_to_the_step(runs):
    views = [view(runs["ours"]), view(runs["sync"])]
    steps = dict(compare_figures(views))[STEP_S]
    for pool in ("trainer", "rollout"):
        rows = [values for label, values in compare_seconds(views) if label.startswith(pool)]
        for number, step_s in enumerate(steps):
            assert sum(row[number] for row in rows) == pytest.approx(step_s, abs=0.02)


def test_a_ratio_is_to_the_first_and_left_out_where_there_is_none():
    assert [cell["ratio"] for cell in show_row("x", [2.0, 3.0])["cells"]] == ["× 1.00", "× 1.50"]
    for values in ([0.0, 3.0], [math.nan, 3.0], [2.0, math.nan], [1e-5, 1.0]):
        assert show_row("x", values)["cells"][1]["ratio"] == ""
