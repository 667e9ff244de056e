"""What is done about lost replicas and about room for more; replicas and places are made up."""

import threading
from types import SimpleNamespace

import pytest

from tests.helpers.patience import wait_until
from verl_pipeline.trainer.pipeline_config import Deadlines
from verl_pipeline.trainer.server_health import ServerWatch
from verl_pipeline.verl_adapter.rollout import replica_starts
from verl_pipeline.verl_adapter.rollout.replica_member import Member
from verl_pipeline.verl_adapter.rollout.replica_restart import DevicesGone
from verl_pipeline.verl_adapter.rollout.replica_starts import MOST_FAILURES, ReplicaStarts


class Cluster:
    """Stands for the restart and for Ray's places.

    Attributes:
        gone: ranks whose node is gone.
        free: places that Ray has left.
        faults: errors of the next starts at new places.
    """

    def __init__(self, gone=(), free=0, faults=()):
        self.gone, self.free, self.faults = set(gone), free, list(faults)
        self.started, self.admitted, self.removed = [], [], []
        self.asked = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def is_needed(self, _worker):
        return False

    def start(self, rank, _dead):
        if rank in self.gone:
            raise DevicesGone("its devices are gone, with their node")
        return self._start(rank, "its own")

    def start_at(self, rank, groups):
        if self.faults:
            raise self.faults.pop(0)
        return self._start(rank, *groups)

    def _start(self, rank, place):
        self.may_go_on.wait()
        self.started.append((rank, place))
        return SimpleNamespace(rank=rank)

    def wait_for_weights(self, _started, is_over):
        return None if is_over() else 7

    def take(self):
        self.asked += 1
        if self.free < 0:
            raise RuntimeError("Ray is not well")
        if not self.free:
            return None
        self.free -= 1
        return [f"place {self.asked}"]

    def give_up(self):
        self.free = 0

    def admit(self, rank, started, oldest):
        assert started.rank == rank
        self.admitted.append((rank, oldest))
        return make_member(rank)


def make_member(rank):
    replica = SimpleNamespace(servers=[], workers=[])
    return Member(
        rank, f"rollout replica {rank}", f"a{rank}", [f"a{rank}"], replica, ServerWatch(1)
    )


@pytest.fixture
def make_starts(monkeypatch):
    monkeypatch.setattr(replica_starts, "end_replica", lambda *_arguments: None)
    monkeypatch.setattr(replica_starts, "are_placed", lambda _groups: True)
    made = []

    def make(cluster, most):
        monkeypatch.setattr(replica_starts, "remove_groups", cluster.removed.append)
        made.append(ReplicaStarts(cluster, cluster, Deadlines(), most, cluster.admit))
        return made[-1]

    yield make
    for starts in made:
        starts.close(60)


def test_a_lost_replica_starts_at_its_place_and_asks_for_no_other(make_starts, capsys):
    cluster = Cluster(free=3)
    starts = make_starts(cluster, most=2)
    starts.replace(make_member(1))
    wait_until(lambda: cluster.admitted, 30, "the replica")
    starts.look_for_place(2)
    starts.close(60)
    assert cluster.started == [(1, "its own")] and cluster.admitted == [(1, 7)]
    assert cluster.asked == 0
    assert "has taken the place of the one lost" in capsys.readouterr().out


def test_those_of_a_lost_node_start_elsewhere_once_there_is_room(make_starts, capsys):
    cluster = Cluster(gone={0, 2})
    starts = make_starts(cluster, most=3)
    for rank in (0, 2):
        starts.replace(make_member(rank))
    wait_until(lambda: len(starts._vacant) == 2, 30, "both to be known as gone")
    starts.look_for_place(3)
    assert cluster.asked == 1 and not cluster.started
    cluster.free = 9
    wait_until(lambda: starts.look_for_place(3) or len(cluster.admitted) == 2, 30, "both")
    starts.look_for_place(3)
    assert sorted(rank for rank, _oldest in cluster.admitted) == [0, 2]
    assert cluster.free == 7
    output = capsys.readouterr().out
    assert "another one takes its place once Ray's cluster has room for it" in output
    assert "rollout replica 2 has joined at a new place" in output


def test_a_pool_grows_one_by_one_to_its_most(make_starts):
    cluster = Cluster(free=9)
    cluster.may_go_on.clear()
    starts = make_starts(cluster, most=4)
    for _ in range(5):
        starts.look_for_place(2 + len(cluster.admitted))
    assert cluster.asked == 1
    cluster.may_go_on.set()
    wait_until(
        lambda: starts.look_for_place(2 + len(cluster.admitted)) or len(cluster.admitted) == 2,
        30,
        "both",
    )
    starts.look_for_place(4)
    assert [rank for rank, _oldest in cluster.admitted] == [2, 3]
    assert cluster.free == 7


def test_places_at_which_nothing_starts_are_given_back_and_no_more_are_asked_for(
    make_starts, capsys
):
    faults = [RuntimeError(f"no start {number}") for number in range(MOST_FAILURES)]
    cluster = Cluster(free=99, faults=faults)
    starts = make_starts(cluster, most=2)
    wait_until(
        lambda: starts.look_for_place(1) or len(cluster.removed) == MOST_FAILURES, 30, "failures"
    )
    wait_until(lambda: starts._growing.done(), 30, "the last one to be known")
    starts.look_for_place(1)
    assert not cluster.admitted and cluster.free == 99 - MOST_FAILURES
    assert capsys.readouterr().out.count("does not start at a new place: no start") == 3


def test_an_error_of_ray_ends_no_run(make_starts, capsys):
    cluster = Cluster(free=-1)
    starts = make_starts(cluster, most=2)
    for _ in range(MOST_FAILURES + 2):
        starts.look_for_place(1)
    assert cluster.asked == MOST_FAILURES
    assert "another rollout replica does not get a place: Ray is not well" in (
        capsys.readouterr().out
    )


def test_one_that_stays_out_is_ended_and_does_not_start(make_starts):
    cluster = Cluster()
    starts = make_starts(cluster, most=2)
    member = make_member(0)
    member.stays_out = True
    starts.replace(member)
    starts.close(60)
    assert not cluster.started
