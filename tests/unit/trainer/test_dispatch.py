"""Safety and liveness past the barrier on random worlds, and planted faults that break each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.pool_world import VALIDATION, Stalled, World, find_violations
from verl_pipeline.trainer import schedule
from verl_pipeline.trainer.dispatch import Arrival, DispatchBook, Grant
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


class PlainBook:
    """What :class:`DispatchBook` shall do: ``decide``, over everything after each event."""

    def __init__(self, slots, mode):
        self.replicas = {name: Replica(None, number) for name, number in slots.items()}
        self.mode, self.published, self.waiting, self.open = mode, -1, [], {}
        self.held = None

    def arrive(self, arrival):
        self.waiting.append(arrival)
        self.waiting.sort(key=lambda waiting: waiting.batch)  # keeps the order of arrival

    def end(self, name):
        self.waiting = [arrival for arrival in self.waiting if arrival.name != name]
        if (place := self.open.pop(name, None)) is not None:
            self.replicas[place].open -= 1

    def publish(self, version):
        self.published = version

    def hold(self, version):
        self.held = version

    def finish_load(self, name):
        replica = self.replicas[name]
        replica.version, replica.loading = replica.loading, None

    def lose(self, name):
        del self.replicas[name]
        self.open = {one: place for one, place in self.open.items() if place != name}

    def join(self, name):
        self.replicas[name] = Replica(None, 2)

    def take_actions(self):
        actions = []
        windows = (arrival.window for arrival in list(self.waiting))
        newest = self.published if self.held is None else min(self.published, self.held)
        for action in schedule.decide(self.replicas, windows, newest, self.mode):
            if isinstance(action, Load):
                self.replicas[action.replica].loading = action.version
                actions.append(action)
            else:
                arrival = self.waiting.pop(0)
                self.open[arrival.name] = action.replica
                self.replicas[action.replica].open += 1
                actions.append(Grant(arrival.name, action.replica))
        return actions


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
        return_s=draw(st.none() | st.sampled_from([0.0, 7.0, 60.0])),
    )


STEPS = st.sets(st.integers(1, 7))


@given(worlds(), STEPS, STEPS, STEPS)
def test_every_token_is_within_the_bound_and_no_trajectory_is_lost(
    world, validations, beside, checkpoints
):
    world.beside = frozenset(beside)
    world.run(validations=validations, checkpoints=checkpoints)
    assert find_violations(world) == []
    validated = {life.window.oldest for life in world.sampled.values() if life.batch == VALIDATION}
    assert validated >= {k for k in beside if k < world.last_step}


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


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 3), min_size=1),
    st.sampled_from([ROLLING, IN_FLIGHT]),
    st.integers(1, 4),
    st.lists(
        st.tuples(st.integers(0, 17), st.integers(0, 999), st.booleans()), min_size=30, max_size=50
    ),
)
def test_the_book_does_what_the_decision_says_of_everything(slots, mode, staleness, events):
    """Also when several events come between two looks, and a batch has several windows."""
    book, plain = DispatchBook(dict(slots), mode), PlainBook(slots, mode)

    def choose_event(number, kind, choice):
        version = max(plain.published, 0)
        loading = [name for name, replica in plain.replicas.items() if replica.loading is not None]
        names = {
            **dict.fromkeys((6, 7, 8), ("end", list(plain.open))),
            9: ("end", [arrival.name for arrival in plain.waiting]),
            **dict.fromkeys((10, 11, 12), ("finish_load", loading)),
            13: ("lose", list(plain.replicas)[1:]),
        }
        event, able = names.get(kind, ("", []))
        if able:
            return event, able[choice % len(able)]
        if kind == 14 or plain.published < 0:
            return "publish", plain.published + 1
        if kind == 16:
            return "hold", version if plain.held is None else None
        if kind == 17:
            return "join", f"replica {number}"
        if kind == 15:
            return "arrive", Arrival(f"t{number}", 0, Window(version, version))
        batch = version + 1 + choice % (staleness + 1)
        last = batch + choice // 7 % 2 * (kind == 0)
        return "arrive", Arrival(f"t{number}", batch, find_window(last, staleness))

    for number, (kind, choice, looks) in enumerate(events):
        event, argument = choose_event(number, kind, choice)
        if isinstance(argument, Arrival):
            book.arrive(argument.name, argument.batch, argument.window)
        elif event == "join":
            book.join(argument, 2)
        else:
            getattr(book, event)(argument)
        getattr(plain, event)(argument)
        if looks:
            assert book.take_actions() == plain.take_actions()
    assert book.take_actions() == plain.take_actions()
    assert book.replicas == plain.replicas
    assert (book.open_count, book.waiting_count) == (len(plain.open), len(plain.waiting))


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


def test_newer_weights_during_a_validation_are_seen(monkeypatch):
    monkeypatch.setattr(DispatchBook, "hold", lambda self, version: None)
    world = make_world(IN_FLIGHT, beside=frozenset({1, 3}), updates=[0.5])
    try:
        found = find_violations(world.run())
    except Stalled:  # nobody holds any more what the validation still needs
        return
    assert any(sentence.startswith("v") for sentence in found)


def test_replicas_wait_for_a_validation_with_the_weights_that_it_needs():
    """Newer ones are published meanwhile, and the one that is behind takes those of the hold."""
    book = DispatchBook({"a": 1, "b": 1}, IN_FLIGHT)
    book.publish(0)
    book.take_actions()
    book.finish_load("a")
    book.hold(0)
    book.publish(1)
    book.finish_load("b")
    assert book.take_actions() == []
    assert "v_1 is published, v_0 is held" in book.describe()
    book.hold(None)
    assert book.take_actions() == [Load("a", 1), Load("b", 1)]


def test_a_load_beneath_a_running_trajectory_is_seen(monkeypatch):
    def may_load(self, published, mode):
        return (self.version is None or self.version < published) and self.loading is None

    monkeypatch.setattr(Replica, "may_load", may_load)
    # Each response is longer than an update, so whenever weights come, something runs.
    violations = find_violations(make_world(lengths=[40.0]).run())
    assert any("loaded while it ran" in line for line in violations)


def test_a_replica_that_never_loads_stalls(monkeypatch):
    monkeypatch.setattr(Replica, "may_load", load_once)
    with pytest.raises(Stalled, match="wait"):
        make_world().run()


def test_what_nobody_samples_again_is_missed(monkeypatch):
    lose = DispatchBook.lose
    monkeypatch.setattr(DispatchBook, "lose", lambda self, name: lose(self, name)[1:])
    with pytest.raises(Stalled, match="none waits"):
        make_world(deaths=[(2.0, "replica 1")]).run()


def test_a_replica_that_returns_without_the_weights_of_the_others_is_seen(monkeypatch):
    def join(self, name, slots):
        self.replicas[name] = Replica(0, slots)
        self._changed.update(self.replicas)

    monkeypatch.setattr(DispatchBook, "join", join)
    monkeypatch.setattr(Replica, "may_begin", begin_with_any_version)
    monkeypatch.setattr(Replica, "may_load", load_once)
    world = make_world(deaths=[(60.0, "replica 1")], return_s=5.0)
    assert any("sampled with v_0" in line for line in find_violations(world.run()))


def test_too_many_open_trajectories_are_seen(monkeypatch):
    def may_begin(self, window):
        return self.loading is None and self.version is not None and window.admits(self.version)

    monkeypatch.setattr(Replica, "may_begin", may_begin)
    assert any("slots" in sentence for sentence in find_violations(make_world().run()))


def test_a_trajectory_that_ends_twice_frees_one_slot():
    book = DispatchBook({"a": 2}, ROLLING)
    book.publish(0)
    assert book.take_actions() == [Load("a", 0)]
    book.finish_load("a")
    for number in range(3):
        book.arrive(f"b1p{number}", 1, find_window(1, 1))
    assert book.take_actions() == [Grant("b1p0", "a"), Grant("b1p1", "a")]
    book.end("b1p0")
    book.end("b1p0")
    assert book.replicas["a"].open == 1
    assert book.take_actions() == [Grant("b1p2", "a")]


def test_who_gives_up_waiting_never_begins():
    book = DispatchBook({"a": 1}, ROLLING)
    book.publish(0)
    book.take_actions()
    book.finish_load("a")
    book.arrive("b1p0", 1, find_window(1, 1))
    book.arrive("b1p1", 1, find_window(1, 1))
    book.end("b1p0")
    assert book.take_actions() == [Grant("b1p1", "a")]


def test_the_description_names_who_holds_and_who_waits():
    book = DispatchBook({"a": 1, "b": 1}, ROLLING)
    book.publish(2)
    book.take_actions()
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


def test_the_first_that_has_loaded_leaves_the_others_their_share():
    """All load at once: a batch that waits for the new version is spread over all of them."""
    book = DispatchBook({"a": 8, "b": 8}, IN_FLIGHT)

    def act():
        return [action.replica for action in book.take_actions() if isinstance(action, Grant)]

    book.publish(0)
    assert act() == []
    for number in range(6):
        book.arrive(f"t{number}", 1, Window(0, 0))
    book.finish_load("a")
    assert act() == ["a"]
    book.finish_load("b")
    assert sorted(act()) == ["a", "a", "b", "b", "b"]


def test_nobody_waits_for_weights_that_are_too_new():
    book = DispatchBook({"a": 8, "b": 8}, IN_FLIGHT)
    book.publish(0)
    list(book.take_actions())
    book.finish_load("a")
    book.replicas["b"].loading = 1
    for number in range(3):
        book.arrive(f"t{number}", 0, Window(0, 0))
    assert [action.replica for action in book.take_actions()] == ["a"] * 3
