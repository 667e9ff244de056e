"""Safety and liveness past the barrier on random worlds, and planted faults that break each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.pool_world import Stalled, World, find_violations
from verl_pipeline.trainer import schedule
from verl_pipeline.trainer.dispatch import DispatchBook, Grant
from verl_pipeline.trainer.schedule import (
    IN_FLIGHT,
    ROLLING,
    Begin,
    Dial,
    Load,
    Replica,
    Window,
    find_window,
)

TIMES = st.floats(0.1, 100.0)


@st.composite
def worlds(draw, mode=None, with_deaths=True):
    """A run with a tail, some replicas, and perhaps deaths."""
    count = draw(st.integers(1, 4))
    slots = {f"replica {number}": draw(st.integers(1, 6)) for number in range(count)}
    deaths = draw(
        st.lists(st.tuples(st.floats(0.0, 300.0), st.sampled_from(sorted(slots))), max_size=2)
        if with_deaths
        else st.just([])
    )
    return World(
        dial=Dial(mode or draw(st.sampled_from([ROLLING, IN_FLIGHT])), draw(st.integers(1, 8))),
        last_step=draw(st.integers(1, 7)),
        slots=slots,
        batch_size=draw(st.integers(1, 7)),
        lengths=draw(st.lists(TIMES, min_size=1, max_size=12)),
        updates=draw(st.lists(TIMES, min_size=1, max_size=4)),
        load_s=draw(st.sampled_from([0.0, 0.5, 40.0])),
        deaths=deaths,
    )


STEPS = st.sets(st.integers(1, 7))


@given(worlds(), STEPS, STEPS)
def test_every_token_is_within_the_bound_and_no_trajectory_is_lost(world, validations, checkpoints):
    world.run(validations=validations, checkpoints=checkpoints)
    assert find_violations(world) == []


@given(worlds(with_deaths=False), st.integers(1, 7))
def test_a_resumed_run_samples_every_batch_once(world, stop):
    """A checkpoint is written while batches are sampled: it holds what is complete."""
    stop = min(stop, world.last_step)
    world.run(checkpoints={stop}, stop=stop)
    held = world.find_held(stop)
    resumed = World(
        dial=world.dial,
        last_step=world.last_step,
        slots=world.slots,
        batch_size=world.batch_size,
        lengths=world.lengths,
        updates=world.updates,
        load_s=world.load_s,
    ).run(trained=stop, held=held)
    assert find_violations(resumed) == []
    assert world.trained + resumed.trained == list(range(1, world.last_step + 1))


@given(worlds(mode=ROLLING, with_deaths=False))
def test_trajectories_begin_in_the_order_of_their_batches(world):
    world.run()
    batches = [world.sampled[name].batch for name in world.begun]
    assert batches == sorted(batches)


def make_world(mode=ROLLING, staleness=2, **changes):
    values = dict(
        dial=Dial(mode, staleness),
        last_step=6,
        slots={"replica 0": 2, "replica 1": 3},
        batch_size=4,
        lengths=[1.0, 3.0, 40.0, 2.0, 7.0],
        updates=[9.0],
        load_s=1.0,
    )
    return World(**values | changes)


def begin_with_any_version(self, window):
    return self.loading is None and self.open < self.slots and self.version is not None


def load_once(self, published, mode):
    return self.version is None and self.loading is None


@pytest.mark.parametrize("mode", [ROLLING, IN_FLIGHT])
def test_weights_outside_the_window_are_seen(monkeypatch, mode):
    monkeypatch.setattr(Replica, "may_begin", begin_with_any_version)
    monkeypatch.setattr(Replica, "may_load", load_once)
    assert any("sampled with v_0" in line for line in find_violations(make_world(mode).run()))


def test_a_load_beneath_a_running_trajectory_is_seen(monkeypatch):
    def may_load(self, published, mode):
        return (self.version is None or self.version < published) and self.loading is None

    monkeypatch.setattr(Replica, "may_load", may_load)
    assert find_violations(make_world().run())


def test_a_replica_that_never_loads_stalls(monkeypatch):
    monkeypatch.setattr(Replica, "may_load", load_once)
    with pytest.raises(Stalled, match="wait"):
        make_world().run()


def test_too_many_open_trajectories_are_seen(monkeypatch):
    def may_begin(self, window):
        return self.loading is None and self.version is not None and window.admits(self.version)

    monkeypatch.setattr(Replica, "may_begin", may_begin)
    assert any("slots" in sentence for sentence in find_violations(make_world().run()))


def test_a_trajectory_that_ends_twice_frees_one_slot():
    book = DispatchBook({"a": 2}, ROLLING)
    book.publish(0)
    assert list(book.take_actions()) == [Load("a", 0)]
    book.finish_load("a")
    for number in range(3):
        book.arrive(f"b1p{number}", 1, find_window(1, 1))
    assert list(book.take_actions()) == [Grant("b1p0", "a"), Grant("b1p1", "a")]
    book.end("b1p0")
    book.end("b1p0")
    assert book.replicas["a"].open == 1
    assert list(book.take_actions()) == [Grant("b1p2", "a")]


def test_who_gives_up_waiting_never_begins():
    book = DispatchBook({"a": 1}, ROLLING)
    book.publish(0)
    list(book.take_actions())
    book.finish_load("a")
    book.arrive("b1p0", 1, find_window(1, 1))
    book.arrive("b1p1", 1, find_window(1, 1))
    book.give_up("b1p0")
    assert list(book.take_actions()) == [Grant("b1p1", "a")]


def test_the_description_names_who_holds_and_who_waits():
    book = DispatchBook({"a": 1, "b": 1}, ROLLING)
    book.publish(2)
    list(book.take_actions())
    book.finish_load("a")
    book.arrive("b9p0", 9, find_window(9, 2))
    line = book.describe()
    assert "a holds v_2 with 0 trajectories open" in line
    assert "b holds v_None and loads v_2" in line
    assert "1 trajectories wait, the first for v_6 to v_8" in line


def test_an_older_replica_takes_nothing_while_a_validation_waits():
    """Else a rolling replica would sample ahead for ever, and the trainer would wait for it."""
    replicas = {"a": Replica(version=1, slots=4, open=1)}
    waiting = [Window(2, 2), find_window(3, 2)]
    assert list(schedule.decide(replicas, waiting, published=2, mode=ROLLING)) == []
    replicas["a"].open = 0
    assert list(schedule.decide(replicas, waiting[:0], 2, ROLLING)) == [Load("a", 2)]


def test_the_least_busy_replica_is_taken():
    replicas = {"a": Replica(3, slots=4, open=3), "b": Replica(3, slots=4, open=1)}
    decision = schedule.decide(replicas, [find_window(4, 1)], 3, ROLLING)
    assert next(decision) == Begin("b")
