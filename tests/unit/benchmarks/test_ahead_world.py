"""verl's `separate_async` in virtual time does what its driver and the emulated pool do."""

import asyncio

import numpy as np
import pytest

from benchmarks.ahead_world import AheadWorld
from tests.helpers.emulated_runs import make_run
from tests.helpers.virtual_time import run_in_virtual_time
from verl_pipeline.emulated.ahead_pool import AheadPool
from verl_pipeline.emulated.clock import EmulatedClock, make_times
from verl_pipeline.emulated.journal import Journal
from verl_pipeline.emulated.rewards import EmulatedRewards
from verl_pipeline.planner.schedules import Layout

SCALE, STEPS, PROMPTS, SAMPLES, GPUS = 50.0, 7, 6, 2, 2
POLL_S = 0.05


class Driver:
    """verl's driver, as slow as ``late_s`` in each of its acts."""

    def __init__(self, run, late_s):
        self.run, self.late_s = run, late_s
        self.times = make_times(run.batches, PROMPTS * SAMPLES)
        self.times.is_drained = False
        read = asyncio.get_running_loop().time
        self.clock = EmulatedClock(SCALE, self.times, control_scale=0.0, read=read)
        journal = Journal(run.journal, "test")
        self.pool = AheadPool(run, self.clock, journal)
        self.rewards = EmulatedRewards(run, self.clock, journal)
        self.in_flight = [0] * run.replicas
        self.running, self.finished = {}, {}
        self.tasks = set()

    def submit(self, batch, step):
        for row in range(batch * PROMPTS, (batch + 1) * PROMPTS):
            self.running[row] = step
            places = []
            for _ in range(SAMPLES):
                places.append(int(np.argmin(self.in_flight)))
                self.in_flight[places[-1]] += 1
            self.tasks.add(asyncio.create_task(self.sample_prompt(row, places)))

    async def sample_prompt(self, row, places):
        await asyncio.gather(*[self.sample(row, place) for place in places])
        self.finished[row] = self.running.pop(row)

    async def sample(self, row, place):
        answer = await self.pool.generate(place, row, None)
        while answer.is_aborted:
            answer = await self.pool.generate(place, row, answer.sample)
        self.in_flight[place] -= 1
        await asyncio.sleep(self.late_s / 4)
        await self.rewards.compute(row, answer.sample)

    async def take_batch(self, step):
        while True:
            await asyncio.sleep(POLL_S)
            is_blocked = any(given <= step - self.run.ahead for given in self.running.values())
            if len(self.finished) >= PROMPTS and not is_blocked:
                rows = sorted(self.finished, key=lambda row: (self.finished[row], row))[:PROMPTS]
                for row in rows:
                    del self.finished[row]
                return self.run.find_places(np.repeat(rows, SAMPLES), np.tile([0, 1], PROMPTS))

    async def send_weights(self):
        await asyncio.sleep(self.late_s)
        self.pool.abort_all()
        await asyncio.sleep(self.late_s)
        weights = self.run.cluster.weights
        end = self.clock.begin_drivers() + weights.publish_s + weights.load_s
        await self.clock.wait(end)
        self.times.driver_time = end
        self.pool.open()

    async def drive(self):
        ends, training = [], self.run.cluster.training
        self.pool.open()
        for batch in range(self.run.ahead):
            self.submit(batch, 1)
        for step in range(1, STEPS + 1):
            self.submit(self.run.ahead + step - 1, step)
            places = await self.take_batch(step)
            await asyncio.sleep(self.late_s)
            rewarded = self.times.rewarded[places].max()
            tokens, mean = self.run.count_tokens(places), self.run.cluster.sampling.mean_tokens
            start = self.clock.begin(max(self.times.driver_time, rewarded))
            ends.append(start + training.compute_seconds(tokens, mean, GPUS))
            with self.times.train(ends[-1], updates=1):
                await self.clock.wait(ends[-1])
                self.times.driver_time = ends[-1]
            await self.send_weights()
        for task in self.tasks:
            task.cancel()
        return ends


@pytest.mark.parametrize("late_s", [0.0, 0.4])
@pytest.mark.parametrize("ahead", [1, 2])
def test_it_takes_what_verls_steps_take_on_the_pool_however_late_they_come(tmp_path, ahead, late_s):
    profile = {
        "sampling__prompts": PROMPTS,
        "sampling__samples": SAMPLES,
        "weights__publish_s": 1.0,
        "weights__load_s": 0.5,
    }
    if late_s:  # while a driver is late rewards go on, so it may see one too many
        profile["reward__seconds"] = 0.0
    run = make_run(
        tmp_path,
        time_scale=SCALE,
        batches=STEPS + 3,
        steps=STEPS,
        ahead=ahead,
        is_bounded=True,
        profile=profile,
    )

    async def drive():
        return await Driver(run, late_s).drive()

    found = run_in_virtual_time(drive())
    layout = Layout(run.rollout_gpus, GPUS, run.slots)
    expected = AheadWorld(run.cluster, run.workload, ahead, layout, STEPS).run()
    assert found == pytest.approx(expected, rel=1e-3)
