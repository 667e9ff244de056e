"""The pool answers every request once, on time, and keeps tokens over aborts; in virtual time."""

import asyncio

import numpy as np
import pytest

from tests.helpers.emulated_runs import make_run
from tests.helpers.virtual_time import run_in_virtual_time
from verl_pipeline.emulated.clock import EmulatedClock, make_times
from verl_pipeline.emulated.journal import Journal, read_journal
from verl_pipeline.emulated.replica import EmulatedReplica, Request
from verl_pipeline.emulated.replica_pool import ReplicaPool
from verl_pipeline.emulated.rewards import EmulatedRewards
from verl_pipeline.planner.barrier import sample_share
from verl_pipeline.planner.rewards import find_last_reward

SCALE = 50.0
# A batch of one trajectory.
SINGLE = {"sampling__prompts": 1, "sampling__samples": 1}


def make_pool(run):
    """A pool and its clock, which is open."""
    times = make_times(run.batches, run.cluster.sampling.trajectories)
    clock = EmulatedClock(SCALE, times, read=asyncio.get_running_loop().time)
    return ReplicaPool(run, clock, Journal(run.journal, "test")), clock


async def end_driver_work(clock, moment):
    """What the driver does next is caused by something that ended then."""
    await clock.wait(moment)
    clock.times.driver_time = moment


def test_a_batch_ends_when_the_planner_says(tmp_path):
    run = make_run(tmp_path, time_scale=SCALE)
    trajectories = [(row, sample) for row in range(3) for sample in range(2)]

    async def sample_all():
        pool, clock = make_pool(run)

        async def sample_one(place, row):
            answer = await pool.generate(place, row, None)
            return (answer.row, answer.sample), clock.now(), answer

        requests = [sample_one(index % 2, row) for index, (row, _) in enumerate(trajectories)]
        return await asyncio.gather(*requests)

    found = run_in_virtual_time(sample_all())
    assert sorted(trajectory for trajectory, _, _ in found) == trajectories
    ends = np.empty(len(trajectories))
    for place in range(2):
        own = np.arange(place, len(trajectories), 2)
        tokens, prompts = run.workload.responses[0, own], run.workload.prompts[0, own]
        ends[own], _ = sample_share(run.speed, tokens, prompts)
    for (row, sample), end, answer in found:
        assert end == pytest.approx(ends[2 * row + sample], abs=1e-6)
        assert answer.done == answer.tokens and not answer.is_aborted
    busy = [entry for entry in read_journal(run.journal) if entry.kind == "sampling"]
    assert sorted(entry.lane for entry in busy) == ["replica 0", "replica 1"]


def test_an_abort_returns_what_there_is_and_the_rest_comes_later(tmp_path):
    run = make_run(tmp_path, time_scale=SCALE, profile=SINGLE)

    async def interrupt():
        pool, clock = make_pool(run)
        request = asyncio.create_task(pool.generate(0, 0, None))
        await end_driver_work(clock, 3.0)
        assert pool.abort_all() == 1
        first = await request
        resumed = asyncio.create_task(pool.generate(1, 0, first.sample))
        await end_driver_work(clock, 40.0)
        assert not resumed.done()  # the pool is closed
        pool.open()
        start = clock.now()
        return first, await resumed, clock.now() - start

    first, second, seconds = run_in_virtual_time(interrupt())
    assert first.is_aborted and 0 < first.done < first.tokens
    assert not second.is_aborted and second.done == second.tokens == first.tokens
    context = run.workload.prompts[0, 0] + first.done
    left = (first.tokens - first.done) * run.speed.step_s[1] + context * run.speed.prefill_s
    assert seconds == pytest.approx(left)


def test_a_pause_keeps_requests(tmp_path):
    run = make_run(tmp_path, time_scale=SCALE, profile=SINGLE)

    async def pause():
        pool, clock = make_pool(run)
        request = asyncio.create_task(pool.generate(0, 0, None))
        await end_driver_work(clock, 2.0)
        pool.pause()
        await end_driver_work(clock, 102.0)
        assert not request.done()
        pool.open()
        answer = await request
        return answer, clock.now() - 100.0

    answer, seconds = run_in_virtual_time(pause())
    alone = answer.tokens * run.speed.step_s[1] + 10 * run.speed.prefill_s
    assert not answer.is_aborted and seconds == pytest.approx(alone)


def test_a_replica_waits_for_the_requests_that_the_control_plane_still_brings(tmp_path):
    run = make_run(tmp_path, time_scale=SCALE, profile={"sampling__prompts": 1})
    late_s = 2.0  # in which 100 emulated seconds would pass, more than a trajectory takes

    async def ask():
        pool, clock = make_pool(run)
        first = asyncio.create_task(pool.generate(0, 0, None))
        await asyncio.sleep(late_s)
        assert not first.done()
        await asyncio.gather(first, pool.generate(0, 0, None))
        return clock.times.generated[0]

    ends = run_in_virtual_time(ask())
    replica = EmulatedReplica(run.speed)
    (one, other), prompt = run.workload.responses[0], run.workload.prompts[0, 0]
    replica.submit(0, Request(one, prompt), 0.0)
    replica.submit(1, Request(other, prompt), late_s)
    expected = dict(replica.advance(1e9))
    assert ends.tolist() == pytest.approx([expected[0], expected[1]], abs=1e-3)


def test_a_batch_that_comes_after_the_update_beside_it_begins_with_the_weights(tmp_path):
    run = make_run(tmp_path, time_scale=SCALE, profile=SINGLE)

    async def ask():
        pool, clock = make_pool(run)
        await end_driver_work(clock, 3.0)
        pool.open()
        late = asyncio.create_task(asyncio.sleep(2.0))  # in which the update ends
        await end_driver_work(clock, 80.0)
        await late
        await pool.generate(0, 0, None)
        return float(clock.times.generated[0, 0])

    end = run_in_virtual_time(ask())
    alone = run.workload.responses[0, 0] * run.speed.step_s[1]
    prefill = run.workload.prompts[0, 0] * run.speed.prefill_s
    # 2 real seconds of the control plane count as 2 emulated ones.
    assert end == pytest.approx(3.0 + 2.0 + alone + prefill, abs=0.1)


def test_a_slow_replica_is_slow_and_a_dead_one_silent(tmp_path):
    broken = {"slow_replicas": {0: 4.0}, "dead_replicas": (1,)}
    run = make_run(tmp_path, time_scale=SCALE, profile={"sampling__prompts": 1}, **broken)

    async def ask():
        pool, clock = make_pool(run)
        dead = asyncio.create_task(pool.generate(1, 0, None))
        await asyncio.sleep(0)
        answer = await pool.generate(0, 0, None)
        end = clock.now()
        await clock.wait(1e6)
        assert not dead.done()
        dead.cancel()
        return answer, end

    answer, end = run_in_virtual_time(ask())
    alone = answer.tokens * run.speed.step_s[1] + 10 * run.speed.prefill_s
    assert end == pytest.approx(4 * alone)


@pytest.mark.parametrize("streams", [True, False])
def test_rewards_end_when_the_planner_says(tmp_path, streams):
    run = make_run(tmp_path, time_scale=SCALE, streams_rewards=streams)
    arrivals = np.array([0.0, 1.0, 2.0, 8.0, 9.0, 20.0])

    async def grade():
        _pool, clock = make_pool(run)
        rewards = EmulatedRewards(run, clock, Journal(run.journal, "test"))

        async def grade_one(index):
            await clock.wait(float(arrivals[index]))
            clock.times.generated[0, index] = arrivals[index]
            await rewards.compute(*divmod(index, 2))
            return clock.now()

        return await asyncio.gather(*map(grade_one, range(6)))

    ends = run_in_virtual_time(grade())
    begins = arrivals if streams else np.full(6, 20.0)
    assert max(ends) == pytest.approx(find_last_reward(begins, run.workload.rewards[0], 2))
    assert streams or min(ends) > 20.0
