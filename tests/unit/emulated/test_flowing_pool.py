"""Past the barrier, replicas do not run ahead of what the control plane still brings."""

import asyncio

import numpy as np
import pytest

from tests.helpers.emulated_runs import make_run
from tests.helpers.virtual_time import run_in_virtual_time
from verl_pipeline.emulated.clock import EmulatedClock, make_times
from verl_pipeline.emulated.flowing_pool import FlowingPool
from verl_pipeline.emulated.journal import Journal
from verl_pipeline.planner.barrier import sample_share

SCALE, PLACES, PROMPTS = 50.0, 2, 12


def sample_late(run, pause_s):
    """When each trajectory of a batch ends whose requests come one by one."""

    async def sample_all():
        times = make_times(run.batches, PROMPTS)
        read = asyncio.get_running_loop().time
        clock = EmulatedClock(SCALE, times, control_scale=0.0, read=read)
        pool = FlowingPool(run, clock, Journal(run.journal, "test"))
        await asyncio.gather(*[pool.load(place, 0) for place in range(PLACES)])
        tasks = []
        for row in range(PROMPTS):
            await asyncio.sleep(pause_s)
            tasks.append(asyncio.create_task(pool.generate(row % PLACES, row, None)))
        await asyncio.gather(*tasks)
        return times.generated[0].copy()

    return run_in_virtual_time(sample_all())


def test_a_batch_that_comes_late_is_sampled_as_if_it_had_come_at_once(tmp_path):
    run = make_run(
        tmp_path,
        time_scale=SCALE,
        flows=True,
        steps=1,
        slots=PROMPTS,
        profile={"sampling__prompts": PROMPTS, "sampling__samples": 1},
    )
    ends = np.empty(PROMPTS)
    for place in range(PLACES):
        own = np.arange(place, PROMPTS, PLACES)
        tokens, prompts = run.workload.responses[0, own], run.workload.prompts[0, own]
        ends[own], _ = sample_share(run.speed, tokens, prompts)
    for pause_s in (0.0, 3.0):
        found = sample_late(run, pause_s)
        assert found == pytest.approx(ends + run.cluster.weights.load_s, abs=1e-3)
