"""Stall deadlines against a model of a pool: servers with a few slots, queues, workers that each
see their own requests only; in virtual time, so that nothing depends on this machine.
"""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.virtual_time import run_in_virtual_time
from verl_pipeline.trainer.deadlines import DeadlineExceeded
from verl_pipeline.trainer.stall import CHECK_SHARE, QueueEnds, StallWatch

SECONDS = 100.0
HANGS = float("inf")


@dataclass
class Server:
    """Takes requests in their order, at most ``slots`` at a time; as verl's, it goes on with a
    request that nobody waits for any more.
    """

    name: str
    slots: asyncio.Semaphore
    tasks: list = field(default_factory=list)

    def submit(self, seconds):
        answer = asyncio.get_running_loop().create_future()

        async def work():
            async with self.slots:
                await asyncio.sleep(seconds if seconds != HANGS else 1e9)
            if not answer.done():
                answer.set_result(None)

        self.tasks.append(asyncio.create_task(work()))
        return answer


@dataclass(frozen=True)
class Trajectory:
    """Turns: (server, seconds there, seconds in a tool afterwards)."""

    start: float
    worker: int
    turns: tuple[tuple[int, float, float], ...]


async def run_pool(slots, trajectories, workers=2):
    """Times at which trajectories ended, and the errors of those given up, by position."""
    servers = [Server(f"server {n}", asyncio.Semaphore(count)) for n, count in enumerate(slots)]
    ends = [QueueEnds() for _ in range(workers)]

    def make_watch(own):
        async def ask_others():
            await asyncio.sleep(0.01)
            return [other.list_ages() for other in ends if other is not own]

        return StallWatch(SECONDS, f"trajectory_s={SECONDS:g}", own, ask_others)

    watches = [make_watch(own) for own in ends]
    finished, lost, last_end = {}, {}, [0.0]
    loop = asyncio.get_running_loop()

    async def run_trajectory(position, trajectory):
        await asyncio.sleep(trajectory.start)
        try:
            async with watches[trajectory.worker].limit(f"trajectory {position}") as job:
                for server, seconds, tool_s in trajectory.turns:
                    queue = servers[server % len(servers)]
                    job.enter_queue(queue.name)
                    has_ended = False
                    try:
                        await queue.submit(seconds)
                        has_ended = True
                        last_end[0] = loop.time()
                    finally:
                        job.leave_queue(queue.name, has_ended=has_ended)
                    await asyncio.sleep(tool_s if tool_s != HANGS else 1e9)
            finished[position] = loop.time()
        except DeadlineExceeded as error:
            lost[position] = (loop.time(), str(error))

    await asyncio.gather(*[run_trajectory(*each) for each in enumerate(trajectories)])
    for task in [task for server in servers for task in server.tasks]:
        task.cancel()
    return finished, lost, last_end[0]


# Work of one step, below the deadline.
work_s = st.floats(0.1, 0.95 * SECONDS)
turns = st.lists(st.tuples(st.integers(0, 2), work_s, work_s), min_size=1, max_size=4)
trajectories = st.lists(
    st.builds(Trajectory, st.floats(0, SECONDS), st.integers(0, 1), turns.map(tuple)),
    min_size=1,
    max_size=30,
)
pools = st.lists(st.integers(1, 3), min_size=1, max_size=3)


@given(pools, trajectories)
@settings(max_examples=60, deadline=None)
def test_whoever_waits_behind_others_is_never_lost(slots, trajectories):
    finished, lost, _end = run_in_virtual_time(run_pool(slots, trajectories))
    assert not lost and len(finished) == len(trajectories)


def test_the_longest_queue_loses_nothing():
    """The last one waits for 40 times the deadline; the old rule lost 98 % of them."""
    many = [Trajectory(0.0, n % 2, ((0, 80.0, 0.0),)) for n in range(100)]
    finished, lost, end = run_in_virtual_time(run_pool([2], many))
    assert not lost and max(finished.values()) == end == 40 * SECONDS


@given(pools, trajectories, st.data())
@settings(max_examples=60, deadline=None)
def test_what_hangs_is_given_up_by_name_and_costs_only_what_it_blocks(slots, trajectories, data):
    """At a server or in a tool; a slot that it holds is gone for ever."""
    hanging = {}
    for position in data.draw(st.sets(st.integers(0, len(trajectories) - 1), min_size=1)):
        trajectory = trajectories[position]
        at_server = data.draw(st.booleans())
        server, seconds, tool_s = trajectory.turns[-1]
        last = (server, HANGS, tool_s) if at_server else (server, seconds, HANGS)
        hanging[position] = Trajectory(
            trajectory.start, trajectory.worker, (*trajectory.turns[:-1], last)
        )
    planted = [hanging.get(position, each) for position, each in enumerate(trajectories)]
    finished, lost, end = run_in_virtual_time(run_pool(slots, planted))
    assert len(finished) + len(lost) == len(trajectories) and hanging.keys() <= lost.keys()
    latest = max(end, max(each.start for each in planted)) + SECONDS * (2 + 3 * CHECK_SHARE)
    for position, (time, message) in lost.items():
        assert message.startswith(f"trajectory {position}: no progress for ")
        assert message.endswith(f"(trajectory_s={SECONDS:g})")
        assert "it waits for server " in message or "it is in its own code" in message
        assert SECONDS <= time <= latest
    blocked = sum(each.turns[-1][1] == HANGS for each in hanging.values())
    if blocked < min(slots):
        assert lost.keys() == hanging.keys()


def test_a_pool_in_which_nothing_ends_any_more_is_given_up_within_the_deadline():
    dead = [Trajectory(0.0, n % 2, ((0, HANGS, 0.0),)) for n in range(50)]
    finished, lost, _end = run_in_virtual_time(run_pool([4], dead))
    assert not finished and len(lost) == 50
    # Together: that one is given up does not look like an end to the others.
    assert max(time for time, _message in lost.values()) <= SECONDS * (1 + 3 * CHECK_SHARE)
    assert all("it waits for server 0, where nothing ended" in text for _t, text in lost.values())


def test_a_tool_that_hangs_is_given_up_although_the_pool_is_busy():
    busy = [Trajectory(0.0, 0, ((0, 80.0, 0.0),)) for _ in range(50)]
    stuck = Trajectory(0.0, 0, ((1, 1.0, HANGS),))
    finished, lost, end = run_in_virtual_time(run_pool([1, 1], [*busy, stuck]))
    assert len(finished) == 50 and lost.keys() == {50} and end == 4000
    time, message = lost[50]
    assert time <= 1 + SECONDS * (1 + 3 * CHECK_SHARE) and "it is in its own code" in message


@pytest.mark.parametrize("behaviour", ["hangs", "raises"])
def test_others_that_cannot_be_asked_hold_up_nobody(behaviour):
    async def ask_others():
        if behaviour == "raises":
            raise ConnectionError("planted")
        await asyncio.sleep(1e9)

    async def main():
        watch = StallWatch(SECONDS, "x=1", QueueEnds(), ask_others)
        with pytest.raises(DeadlineExceeded, match=r"job: no progress for .*x=1"):
            async with watch.limit("job"):
                await asyncio.sleep(1e9)
        return asyncio.get_running_loop().time()

    assert run_in_virtual_time(main()) <= SECONDS * (2 + 3 * CHECK_SHARE)


def test_the_error_shows_the_line_and_other_timeouts_pass():
    async def main():
        async def ask_others():
            return []

        watch = StallWatch(SECONDS, "x=1", QueueEnds(), ask_others)
        with pytest.raises(DeadlineExceeded) as caught:
            async with watch.limit("job"):
                await asyncio.sleep(1e9)  # here
        assert caught.value.__cause__.__cause__.__traceback__ is not None
        with pytest.raises(TimeoutError, match="of the body") as passed:
            async with watch.limit("job"):
                raise TimeoutError("of the body")
        assert not isinstance(passed.value, DeadlineExceeded)

    run_in_virtual_time(main())
