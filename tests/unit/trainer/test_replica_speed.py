"""Slow replicas are found by what they sample at the same load, and no others are."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from verl_pipeline.trainer.replica_speed import SpeedWatch, Work, WorkMeter, find_slowest

WINDOW = 100.0


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class World:
    """Replicas that are read every few seconds, whose rate grows with their load up to a limit.

    Args:
        slow: by replica, how many times slower it is than the others.
        limit: running requests beyond which an engine samples no more tokens a second.
        noise: share by which the rate of each second differs at most.
    """

    def __init__(self, slow, limit, noise, seed, factor=2.0):
        self.slow, self.limit, self.noise = slow, limit, noise
        self.chance, self.clock = random.Random(seed), Clock()
        self.meters = {name: WorkMeter(self.clock) for name in slow}
        self.loads, self.owed = dict.fromkeys(slow, 0), dict.fromkeys(slow, 0.0)
        self.watch = SpeedWatch(factor, WINDOW, self.clock)

    def run(self, seconds, choose_load):
        """Return the first verdict and when it came."""
        for second in range(seconds):
            for name, meter in self.meters.items():
                load = choose_load(self.chance, name, second)
                meter.change(load - self.loads[name])
                self.loads[name] = load
            self.clock.now += 1.0
            for name, meter in self.meters.items():
                noise = 1.0 + self.noise * self.chance.uniform(-1.0, 1.0)
                rate = 100.0 * min(self.loads[name], self.limit) / self.slow[name]
                self.owed[name] += rate * noise
                meter.sample(int(self.owed[name]))
                self.owed[name] -= int(self.owed[name])
            if second % 5 == 4:
                works = {name: meter.read() for name, meter in self.meters.items()}
                if (found := self.watch.judge(works)) is not None:
                    return found, self.clock.now
        return None


def name_replicas(count):
    return [f"replica {number}" for number in range(count)]


# Loads that a dispatcher gives: full for a while, then a tail of few requests, then none.
def choose_tailed_load(period, slots):
    def choose(chance, name, second):
        phase = (second + hash_name(name) * period // 7) % period
        if phase < period // 2:
            return slots - chance.randrange(2)
        return max(0, slots * (period - 2 * (phase - period // 2)) // (3 * period))

    return choose


def hash_name(name):
    return int(name.split()[1])


worlds = {
    "replicas": st.integers(1, 6),
    "limit": st.integers(1, 64),
    "slots": st.integers(2, 64),
    "period": st.integers(4, 80),
    "noise": st.floats(0.0, 0.3),
    "seed": st.integers(0, 1000),
}


@settings(deadline=None, max_examples=40)
@given(**worlds)
def test_no_replica_of_equal_speed_is_slow_whatever_runs_on_each(
    replicas, limit, slots, period, noise, seed
):
    world = World(dict.fromkeys(name_replicas(replicas), 1.0), limit, noise, seed)
    assert world.run(250, choose_tailed_load(period, slots)) is None


@settings(deadline=None, max_examples=40)
@given(loads=st.lists(st.integers(0, 64), min_size=5, max_size=40), **worlds)
def test_nor_is_one_with_loads_of_its_own(loads, replicas, limit, slots, period, noise, seed):
    """Even if it has a tail of one request while the others are full."""
    world = World(dict.fromkeys(name_replicas(replicas), 1.0), limit, noise, seed)
    tailed = choose_tailed_load(period, slots)

    def choose(chance, name, second):
        return loads[second % len(loads)] if name == "replica 0" else tailed(chance, name, second)

    assert world.run(250, choose) is None


@settings(deadline=None, max_examples=40)
@given(**worlds | {"replicas": st.integers(2, 6)}, factor=st.floats(3.0, 50.0))
def test_one_that_is_three_times_slower_is_found_once_it_has_been_watched_for_the_window(
    replicas, limit, slots, period, noise, seed, factor
):
    names = name_replicas(replicas)
    slow = names[seed % replicas]
    world = World({**dict.fromkeys(names, 1.0), slow: factor}, limit, noise, seed, factor=1.5)
    tailed = choose_tailed_load(period, slots)

    def choose(chance, name, second):
        load = tailed(chance, name, second)
        return max(load, slots // 2) if name == slow else load  # it is never done

    found, at = world.run(400, choose)
    assert found.replica == slow and found.factor > 1.5
    assert at >= WINDOW


def test_one_that_runs_little_is_not_judged_nor_the_only_one():
    busy, idle = {3: Work(60.0, 300.0, 6000)}, {3: Work(40.0, 200.0, 40)}
    assert find_slowest({"a": busy, "b": idle}, WINDOW, 2.0) is None
    assert find_slowest({"b": {3: Work(60.0, 300.0, 40)}}, WINDOW, 2.0) is None
    found = find_slowest({"a": busy, "b": {3: Work(60.0, 300.0, 40)}}, WINDOW, 2.0)
    assert (found.replica, found.factor) == ("b", 150.0)


def test_one_that_samples_nothing_is_slow():
    found = find_slowest(
        {"a": {1: Work(60.0, 60.0, 9)}, "b": {1: Work(60.0, 60.0, 0)}}, WINDOW, 2.0
    )
    assert found.replica == "b"


def test_after_a_verdict_all_are_watched_anew():
    world = World({"replica 0": 1.0, "replica 1": 9.0}, 8, 0.0, 0)
    choose = choose_tailed_load(10, 8)

    def keep_full(_chance, _name, _second):
        return 8

    _found, first = world.run(400, keep_full)
    _found, second = world.run(400, keep_full)
    assert first == second - first >= WINDOW
    del world.meters["replica 1"]
    assert world.run(400, choose) is None


def test_a_pause_counts_for_nothing():
    clock = Clock()
    meter = WorkMeter(clock)
    meter.change(2)
    clock.now = 3.0
    meter.sample(5)
    meter.pause(True)
    clock.now = 50.0
    meter.pause(False)
    clock.now = 51.0
    meter.change(-1)
    clock.now = 52.0
    assert meter.read() == {2: Work(4.0, 8.0, 5), 1: Work(1.0, 1.0, 0)}


def test_a_long_tail_beside_a_steady_load_is_not_slow():
    """Its mean load and its mean rate are those of an engine that is five times slower."""
    world = World(dict.fromkeys(name_replicas(2), 1.0), limit=10, noise=0.0, seed=0, factor=1.5)

    def choose(_chance, name, second):
        return 11 if name == "replica 1" else 100 if second % 10 == 0 else 1

    assert world.run(250, choose) is None

    def choose_shared(_chance, name, second):
        return choose(_chance, name, second) if second % 2 else 10

    assert world.run(250, choose_shared) is None


def test_how_slow_is_told_for_one_that_samples_nothing_too():
    found = {name: {1: Work(WINDOW, WINDOW, tokens)} for name, tokens in [("a", 0), ("b", 50)]}
    slowest = find_slowest(found, WINDOW, 3.0)
    assert slowest.replica == "a" and slowest.describe_factor() == "none, unlike"
    found["a"] = {1: Work(WINDOW, WINDOW, 10)}
    assert find_slowest(found, WINDOW, 3.0).describe_factor() == "5.0 times slower than"
