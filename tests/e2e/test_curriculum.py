"""Runs with a selector: ``uniform`` is the run without one; a killed run goes on as it would."""

import pytest

from tests.helpers.patience import wait_until
from tests.helpers.training_run import (
    kill_run,
    list_unknown_metrics,
    make_staleness_overrides,
    tail,
)
from verl_pipeline.testing import equivalence, runs
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SAVE_EVERY, KILL_AFTER = 2, 3


def make_overrides(directory, selector, *more):
    return [
        *make_staleness_overrides(directory),
        f"{PIPELINE_KEY}.curriculum.selector={selector}",
        f"{PIPELINE_KEY}.curriculum.floor_share=0.25",
        *more,
    ]


@pytest.fixture(scope="module")
def train(runs_directory):
    """Trains to the end with a selector and overrides, once."""
    made = {}

    def run(selector, *more):
        key = (selector, *more)
        if key not in made:
            folder = runs_directory / f"curriculum-{selector}-{len(made)}"
            made[key] = runs.run_training(folder, make_overrides(runs_directory, selector, *more))
            assert made[key].returncode == 0, tail(made[key])
        return made[key]

    return run


def kill_and_resume(directory, folder, selector, *more):
    """Kill every process of a run at a later step than its last checkpoint, and run it again."""
    overrides = make_overrides(
        directory,
        selector,
        f"trainer.save_freq={SAVE_EVERY}",
        f"trainer.default_local_dir={folder}/checkpoints",
        "trainer.resume_mode=auto",
        *more,
    )
    process = runs.start_run(folder, overrides)
    wait_until(
        lambda: process.poll() is not None or KILL_AFTER in runs.read_metrics(folder),
        300,
        f"step {KILL_AFTER}",
    )
    descendants = kill_run(process)
    killed = runs.collect_run(folder, process, descendants)
    assert killed.returncode == -9, tail(killed)
    resumed = runs.run_training(folder, overrides)
    assert resumed.returncode == 0, tail(resumed)
    assert "[resume] goes on from" in resumed.output
    return resumed


def test_uniform_trains_what_a_run_without_a_selector_trains(train):
    without, uniform = train("null"), train("uniform")
    difference = equivalence.compare_runs(without, uniform)
    assert difference.is_equal, difference
    assert list_unknown_metrics(uniform) == [] and uniform.survivors == []
    assert not [name for name in without.metrics[1] if name.startswith("curriculum/")]
    assert {"curriculum/signal_share", "curriculum/coverage"} <= uniform.metrics[1].keys()


@pytest.mark.parametrize("selector", ["uniform", "learnability", "similar"])
def test_a_killed_run_goes_on_with_the_prompts_of_an_uninterrupted_one(
    train, runs_directory, selector
):
    whole = train(selector)
    folder = runs_directory / f"curriculum-killed-{selector}"
    resumed = kill_and_resume(runs_directory, folder, selector)
    # The trajectories of both halves: a batch that was chosen twice would have more prompts.
    assert resumed.list_batches() == whole.list_batches()
    last = equivalence.STEPS
    for name, value in whole.metrics[last].items():
        if name.startswith("curriculum/"):
            assert resumed.metrics[last][name] == pytest.approx(value), name
    batches = {tuple(rows) for rows in whole.list_batches().values()}
    assert len(batches) > 3, "a choice that changes nothing shows nothing"


def test_past_the_barrier_the_batches_in_flight_are_chosen_once(runs_directory):
    """What is incomplete at a checkpoint is sampled again by the resumed run: the same prompts."""
    folder = runs_directory / "curriculum-in-flight"
    mode = [f"{PIPELINE_KEY}.weight_sync_mode=in_flight", f"{PIPELINE_KEY}.staleness=2"]
    resumed = kill_and_resume(runs_directory, folder, "learnability", *mode)
    batches = resumed.list_batches()
    assert list(batches) == list(range(1, equivalence.STEPS + 1))
    assert {len(rows) for rows in batches.values()} == {equivalence.BATCH}
    assert list_unknown_metrics(resumed) == [] and resumed.survivors == []
