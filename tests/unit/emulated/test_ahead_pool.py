"""Beside a trainer, replicas do not pass the moment at which its driver acts next."""

import asyncio
from math import inf, nan

import numpy as np
import pytest

from tests.helpers.emulated_runs import make_run
from tests.helpers.virtual_time import run_in_virtual_time
from verl_pipeline.emulated.ahead_pool import AheadPool, find_batch_end
from verl_pipeline.emulated.clock import EmulatedClock, make_times
from verl_pipeline.emulated.journal import Journal

SCALE, UPDATE_S = 50.0, 6.0


def sample_beside_an_update(run, late_s):
    """Tokens that an interruption at the end of an update finds, by a driver that is late."""

    async def sample():
        times = make_times(run.batches, run.cluster.sampling.trajectories)
        times.is_drained = False
        read = asyncio.get_running_loop().time
        clock = EmulatedClock(SCALE, times, control_scale=0.0, read=read)
        pool = AheadPool(run, clock, Journal(run.journal, "test"))
        pool.open()
        tasks = []
        for row in range(2):  # a batch that is trained, and one that is sampled beside it
            tasks.append(asyncio.create_task(pool.generate(row % 2, row, None)))
        start = clock.begin_drivers()
        with times.train(start + UPDATE_S, updates=1):
            await clock.wait(start + UPDATE_S)
            times.driver_time = start + UPDATE_S
            await asyncio.sleep(late_s)
        await asyncio.sleep(late_s)
        assert pool.abort_all() == 2
        return [(answer.done, answer.is_aborted) for answer in await asyncio.gather(*tasks)]

    return run_in_virtual_time(sample())


def test_a_late_driver_interrupts_what_had_been_sampled_when_its_update_ended(tmp_path):
    one = {"sampling__prompts": 1, "sampling__samples": 1}
    run = make_run(tmp_path, time_scale=SCALE, ahead=1, steps=2, profile=one)
    prompts = run.workload.prompts[:2, 0]
    seconds = UPDATE_S - prompts * run.speed.prefill_s
    expected = seconds / run.speed.step_s[1]
    assert all(expected < run.workload.responses[:2, 0])
    for late_s in (0.0, 2.0):  # in which all would end
        found = sample_beside_an_update(run, late_s)
        assert [done for done, _ in found] == pytest.approx(expected, abs=1.0)
        assert all(is_aborted for _, is_aborted in found)


@pytest.mark.parametrize(
    ("step", "ahead", "is_bounded", "end"),
    [
        (1, 1, False, 3.0),  # whichever two prompts are there first
        (1, 1, True, 3.0),  # the first step has nothing older
        (2, 1, False, 9.0),
        (2, 1, True, inf),  # waits for the prompt that has no end yet
        (3, 1, False, inf),
    ],
)
def test_a_batch_is_there_as_verls_replay_buffer_has_it(step, ahead, is_bounded, end):
    # Two prompts of two samples in each batch.
    rewarded = np.array([[1.0, 2.0, nan, 1.0], [9.0, 4.0, 3.0, 3.0], [6.0, 6.0, nan, nan]])
    assert find_batch_end(rewarded, 2, step, ahead, is_bounded) == end


def test_a_bounded_batch_waits_for_the_oldest():
    rewarded = np.array([[1.0, 2.0, 30.0, 1.0], [9.0, 4.0, 3.0, 3.0], [6.0, 6.0, 7.0, 1.0]])
    assert find_batch_end(rewarded, 2, 2, 1, is_bounded=False) == 7.0
    assert find_batch_end(rewarded, 2, 2, 1, is_bounded=True) == 30.0
