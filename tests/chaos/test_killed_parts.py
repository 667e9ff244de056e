"""A run goes on, with the batches of an undisturbed one, whichever of its parts are killed."""

import os

import pytest

from tests.chaos.killed_parts import kill_parts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SEED, KILLS = int(os.environ.get("CHAOS_SEED", "1")), int(os.environ.get("CHAOS_KILLS", "6"))


def test_a_run_whose_parts_are_killed_trains_what_an_undisturbed_one_trains(tmp_path):
    kill_parts(tmp_path, KILLS, SEED)
