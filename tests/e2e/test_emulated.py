"""verl's `sync` and our mode on emulated engines: real trainers of verl's and ours, planned times.

Emulated steps last thousands of seconds, so the control plane's real seconds do not show.
"""

import numpy as np
import pytest

from benchmarks.emulated_measure import measure_run
from benchmarks.emulated_modes import MODES, make_environment, make_overrides, write_inputs
from tests.helpers.bills import check_bills
from tests.helpers.emulated_runs import make_run
from tests.helpers.training_run import tail
from verl_pipeline.emulated.journal import read_journal
from verl_pipeline.planner.schedules import Layout
from verl_pipeline.planner.simulation import simulate
from verl_pipeline.testing import runs

STEPS, WARM_UP = 3, 1
PROFILE = {
    "sampling__decode_base_s": 20.0,
    "sampling__decode_per_sequence_s": 2.0,
    "training__update_s": 4000.0,
    "reward__seconds": 300.0,
    "weights__publish_s": 200.0,
    "weights__load_s": 100.0,
    "weights__switch_s": 400.0,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sync", "ours:drained", "separate_async"])
def test_a_mode_takes_the_time_of_the_described_cluster(name, tmp_path):
    mode = MODES[name]
    gpus = 4 if mode.is_colocated else 2
    run = make_run(
        tmp_path,
        time_scale=2000.0,
        profile=PROFILE,
        batches=STEPS + 4,
        rollout_gpus=gpus,
        trainer_gpus=gpus,
    )
    write_inputs(tmp_path, run)
    overrides = make_overrides(tmp_path, run, mode, STEPS)
    result = runs.run_training(tmp_path, overrides, **make_environment(tmp_path))
    assert result.returncode == 0, tail(result)
    assert result.survivors == [] and result.leftovers == []
    check_bills(tmp_path / "run")
    measured = measure_run(tmp_path / "run", run, WARM_UP)
    updates = [entry.step for entry in read_journal(run.journal) if entry.kind == "update"]
    assert sorted(updates) == list(range(1, STEPS + 1))
    assert all(0 < share <= 1 for share in measured.busy.values())
    if mode.schedule is None:
        assert len(measured.step_s) == STEPS - WARM_UP and min(measured.step_s) > 0
        return
    expected = simulate(
        run.cluster,
        mode.schedule,
        Layout(gpus, gpus, run.slots),
        steps=STEPS,
        warm_up=WARM_UP,
        workload=run.workload,
    )
    assert measured.step_s == pytest.approx(np.diff(expected.ends).tolist(), rel=0.03)
    age = mode.schedule.staleness
    assert (measured.mean_age, measured.largest_age, measured.mixed_share) == (age, age, 0.0)
