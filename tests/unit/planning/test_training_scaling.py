"""How training scales, from runs on other devices: the exponent comes back and is said."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.made_up_run import write_run
from tests.helpers.simulated_run import MadeUpRun
from verl_pipeline.planner.profile_error import ProfileError
from verl_pipeline.planning.run_profile import make_run_estimate
from verl_pipeline.planning.training_scaling import Pace, Scaling, fit_exponent
from verl_pipeline.telemetry.records import FOLDER

RUN = MadeUpRun(mode="sync", steps=6, trainer_devices=4)


def write_runs(folder, *counts, exponent=1.0):
    """Runs of the same work; made-up runs as they are scale perfectly."""
    folders = []
    for count in counts:
        slowness = (count / 4) ** (1 - exponent)
        phases = {name: slowness * seconds for name, seconds in RUN.phases.items()}
        run = dataclasses.replace(RUN, trainer_devices=count, phases=phases)
        folders.append(folder / f"on-{count}")
        write_run(folders[-1], run)
    return folders


def make_paces(exponent, seconds, counts, tokens=1000.0):
    return [
        Pace(Path(f"run-{i}"), count, seconds * tokens * count**-exponent, tokens)
        for i, count in enumerate(counts)
    ]


@given(
    st.floats(0, 1),
    st.floats(1e-4, 10),
    st.lists(st.integers(1, 4096), min_size=2, max_size=5).filter(lambda n: len(set(n)) > 1),
)
def test_the_exponent_that_made_the_times_is_found(exponent, seconds, counts):
    paces = make_paces(exponent, seconds, counts)
    assert fit_exponent(paces) == pytest.approx(exponent, abs=1e-6)
    # Twice the tokens take twice the time: that is not the devices' doing.
    longer = dataclasses.replace(
        paces[0], update_s=2 * paces[0].update_s, tokens=2 * paces[0].tokens
    )
    assert fit_exponent([longer, *paces[1:]]) == pytest.approx(exponent, abs=1e-6)


def test_a_noisy_exponent_is_the_one_between():
    between = [*make_paces(0.5, 1.0, (2, 8)), *make_paces(0.5, 1.1, (4,))]
    assert fit_exponent(between) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("measured", "used"), [(-0.3, 0.0), (0.4, 0.4), (1.7, 1.0), (1.001, 1.0)])
def test_an_exponent_outside_is_held_and_said(measured, used):
    scaling = Scaling(measured, tuple(make_paces(measured, 1.0, (2, 1))), ("Records: bad.",))
    told = " ".join(scaling.describe())
    assert scaling.exponent == used and f"to the power {used:.2f}" in told
    assert ("does not believe" in told) == (abs(measured - used) > 0.1)
    assert (f"power {measured:.2f})" in told) == ("does not believe" in told)
    assert told.endswith("Records: bad.")


def test_another_run_gives_the_exponent_of_the_plan(tmp_path):
    main, half, quarter = write_runs(tmp_path, 4, 2, 1, exponent=0.4)
    alone = make_run_estimate(main)
    assert alone.profile.training.scaling == 1.0
    assert "one run cannot tell" in " ".join(alone.notes)
    for others in ([half], [half, quarter]):
        found = make_run_estimate(main, others)
        assert found.profile.training.scaling == pytest.approx(0.4, abs=0.02)
        told = " ".join(found.notes)
        assert all(str(other) in told for other in others) and "one run cannot tell" not in told
        assert ("fits on fewer than 2 GPUs" in told) == (quarter not in others)


def test_a_run_that_tells_nothing_names_the_fix(tmp_path):
    main, same = write_runs(tmp_path / "a", 4)[0], write_runs(tmp_path / "b", 4)[0]
    with pytest.raises(ProfileError, match=r"trains on 4 devices, as .* does; give a run that"):
        make_run_estimate(main, [same])
    empty, short = tmp_path / "empty", tmp_path / "short"
    write_run(empty, dataclasses.replace(RUN, trainer_devices=2))
    next((empty / FOLDER).glob("trajectories-*")).unlink()
    with pytest.raises(ProfileError, match=r"empty: no trajectory .*; give a run whose telemetry"):
        make_run_estimate(main, [empty])
    write_run(short, dataclasses.replace(RUN, trainer_devices=2, steps=2))
    with pytest.raises(ProfileError, match=r"short: 1 complete steps are no mean; give a run of"):
        make_run_estimate(main, [short])
    idle = tmp_path / "idle"
    phases = dict.fromkeys(RUN.phases, 0.0)
    write_run(idle, dataclasses.replace(RUN, trainer_devices=2, phases=phases))
    with pytest.raises(ProfileError, match=r"idle: its steps have no update; give a run that"):
        make_run_estimate(main, [idle])
