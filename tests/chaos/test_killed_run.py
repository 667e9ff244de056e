"""After any kills, a run has trained exactly what an undisturbed one trains."""

import os

import pytest

from tests.chaos.killed_run import (
    finish_and_compare,
    kill_repeatedly,
    make_overrides,
    run_undisturbed,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

SEED, KILLS = int(os.environ.get("CHAOS_SEED", "1")), int(os.environ.get("CHAOS_KILLS", "6"))


@pytest.mark.parametrize("mode", ["drained", "rolling"])
def test_a_run_killed_at_random_instants_trains_what_an_undisturbed_one_trains(tmp_path, mode):
    folder, steps = tmp_path / "killed", 2 * KILLS
    overrides = make_overrides(folder, steps, mode)
    killed = kill_repeatedly(folder, overrides, KILLS, SEED)
    print(f"{killed} kills, seed {SEED}")
    whole = run_undisturbed(tmp_path / "whole", steps, mode)
    finish_and_compare(folder, overrides, whole, steps)
