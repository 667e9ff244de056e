"""Which processes a version is sent to while nodes join and go; Ray and the network are made up.

The real ones are in tests/integration/test_publication.py.
"""

from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError

from verl_pipeline.verl_adapter.rollout.replica_probe import RolloutServerDead
from verl_pipeline.verl_adapter.weights import leader_transport, version_transport
from verl_pipeline.verl_adapter.weights.leader_transport import LeaderTransport
from verl_pipeline.weight_sync.buckets import WeightSyncError


class Worker:
    """A rollout worker whose calls are answered at once, or end with its death."""

    def __init__(self, node):
        self.node, self.is_dead, self.stored, self.group = node, False, [], None

    @property
    def execute_checkpoint_engine(self):
        return SimpleNamespace(remote=self._execute)

    @property
    def __ray_ready__(self):
        return SimpleNamespace(remote=lambda: self._answer(None))

    def _answer(self, result):
        return ActorDiedError() if self.is_dead else result

    def _execute(self, method, *arguments):
        return self._answer(None if self.is_dead else getattr(self, method)(*arguments))

    def find_node(self):
        return self.node

    def open_store(self, _versions, _timeout_s):
        return [f"store of {self.node}"]

    def join_store(self, paths, _timeout_s):
        assert paths == [f"store of {self.node}"]

    def begin_storing(self, version):
        assert self.group, "it is in no group"
        self.stored.append(version)

    def take_stored(self):
        return self.stored[-1] if self.stored else None

    def has_ended_reception(self):
        return True

    def drop_version(self, version):
        self.stored.remove(version)

    def finalize(self):
        pass

    def leave_group(self):
        self.group = None


class Sync:
    """verl's manager: its groups are those of all members, or of nobody."""

    backend = "gloo"
    backend_cls = SimpleNamespace(leave_group=None)

    def build_process_group(self, group):
        if any(worker.is_dead for worker in group):
            raise ActorDiedError()
        for worker in group:
            assert worker.group in (None, group), "it is in another group"
            worker.group = group


class Senders:
    world_size = 1

    def execute_checkpoint_engine(self, methods, *_arguments):
        return [None for _ in methods]

    def update_weights(self, global_steps, mode):
        return [{"weight_sync/tensors": 1.0}]


@pytest.fixture
def open_transport(monkeypatch):
    def get(answers, timeout=None):
        if isinstance(answers, BaseException):
            raise answers
        is_list = isinstance(answers, list) and not (answers and isinstance(answers[0], str))
        return [get(one) for one in answers] if is_list else answers

    made_up = SimpleNamespace(get=get, wait=lambda refs, **_options: (refs, []))
    monkeypatch.setattr(leader_transport, "ray", made_up)
    monkeypatch.setattr(version_transport, "ray", made_up)
    monkeypatch.setattr(leader_transport, "_make_group", list)

    def open_it(*workers):
        nodes = {worker: worker.node for worker in workers}
        names = {worker: f"replica on {worker.node}" for worker in workers}
        return LeaderTransport(Senders(), Sync(), nodes, names, 3, 60.0)

    return open_it


def test_a_node_that_joins_gets_the_next_version_and_drops_no_older_one(open_transport):
    first, late, beside = Worker("node 0"), Worker("node 1"), Worker("node 0")
    transport = open_transport(first)
    transport.send(1)
    transport.add_workers([late], "replica 1")
    transport.add_workers([beside], "replica 2")
    assert transport.find_first_version([late]) is None
    assert transport.find_first_version([beside]) == version_transport.ANY_VERSION
    assert transport.send(2) == {"weight_sync/tensors": 1.0}
    assert (first.stored, late.stored, beside.stored) == ([1, 2], [2], [])
    assert transport.find_first_version([late, beside]) == 2
    assert transport.places == ["the node of replica on node 0", "the node of replica 1"]
    transport.drop(1)
    transport.send(3)
    transport.drop(2)
    assert (first.stored, late.stored) == ([3], [3])
    assert transport.is_storing(late) and not transport.is_storing(beside)


def test_a_node_that_goes_before_its_first_version_holds_nobody_up(open_transport, capsys):
    first, gone = Worker("node 0"), Worker("node 1")
    transport = open_transport(first)
    transport.send(1)
    transport.add_workers([gone], "replica 1")
    gone.is_dead = True
    transport.send(2)
    assert first.stored == [1, 2] and transport.places == ["the node of replica on node 0"]
    assert "no version reaches the node of replica 1 any more" in capsys.readouterr().out
    with pytest.raises(WeightSyncError, match="no weights are sent to node node 1 any more"):
        transport.find_first_version([gone])


def test_one_joins_while_the_first_goes_and_another_one_starts_there(open_transport):
    first, late = Worker("node 0"), Worker("node 1")
    transport = open_transport(first)
    transport.send(1)
    transport.add_workers([late], "replica 1")
    first.is_dead = True
    transport.send(2)
    assert late.stored[-1] == 2 and transport.find_first_version([late]) == 2
    again = Worker("node 0")
    transport.add_workers([again], "replica 0")
    assert transport.find_first_version([again]) is None
    transport.send(3)
    assert again.stored == [3] and transport.find_first_version([again, late]) == 3


def test_the_last_one_that_goes_ends_the_run(open_transport):
    first = Worker("node 0")
    transport = open_transport(first)
    first.is_dead = True
    with pytest.raises((ActorDiedError, RolloutServerDead)):
        transport.send(1)


def test_an_engine_that_forms_no_other_group_refuses_another_node(open_transport, monkeypatch):
    monkeypatch.setattr(Sync, "backend_cls", SimpleNamespace())
    transport = open_transport(Worker("node 0"))
    transport.add_workers([Worker("node 0")], "replica 1")
    with pytest.raises(WeightSyncError, match="replica 2: no weights .* node 1, .*; gloo can"):
        transport.add_workers([Worker("node 1")], "replica 2")
