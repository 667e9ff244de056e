"""Which replicas the patrol takes out for being slow; replicas and dispatcher are made up."""

from types import SimpleNamespace

import pytest

from verl_pipeline.trainer.pipeline_config import Deadlines, OneOffPipelineConfig
from verl_pipeline.trainer.replica_speed import Work
from verl_pipeline.verl_adapter.rollout import replica_patrol
from verl_pipeline.verl_adapter.rollout.dispatcher import ReplicaLoss
from verl_pipeline.verl_adapter.rollout.replica_patrol import ReplicaPatrol

WINDOW = 10.0


class Manager:
    def __init__(self, replicas):
        self.replicas = [SimpleNamespace(server_handle=name) for name in range(replicas)]

    def get_replicas(self):
        return self.replicas

    def get_addresses(self):
        return [f"host:{number}" for number in range(len(self.replicas))]


class Pool:
    """A patrol whose dispatcher answers at once, in virtual time."""

    def __init__(self, monkeypatch, rates, **settings):
        self.now, self.rates, self.done = 0.0, list(rates), [0.0] * len(rates)
        self.lost, self.replaced = [], []
        given = OneOffPipelineConfig(deadlines=Deadlines(slow_s=WINDOW), **settings)
        self.patrol = ReplicaPatrol("vllm", Manager(len(rates)), None, given)
        if self.patrol._speeds is not None:
            self.patrol._speeds._clock = lambda: self.now
        self.patrol._starts = SimpleNamespace(replace=self.replaced.append)
        monkeypatch.setattr(replica_patrol, "list_living_nodes", lambda: set())
        monkeypatch.setattr(replica_patrol, "judge", self._judge)
        monkeypatch.setattr(self.patrol, "_ask", self._ask)

    def _judge(self, member, *_arguments):
        member.works = {2: Work(self.now, 2 * self.now, int(self.done[member.rank]))}

    def _ask(self, method, *arguments):
        if method == "lose":
            self.lost.append(ReplicaLoss(*arguments, trajectories=2, at=0.0))
        elif method == "take_losses":
            lost, self.lost = self.lost, []
            return lost
        return None

    def look(self, seconds):
        for _ in range(int(seconds)):
            self.now += 1.0
            self.done = [done + rate for done, rate in zip(self.done, self.rates, strict=True)]
            self.patrol.check()

    def list_living(self):
        return [member.rank for member in self.patrol.list_living()]


@pytest.mark.parametrize(
    "settings", [{}, {"slow_factor": 9.0}, {"slow_factor": 3.0, "min_replicas": 3}]
)
def test_a_slow_replica_stays_if_nobody_asked_or_too_few_would_be_left(monkeypatch, settings):
    pool = Pool(monkeypatch, [100.0, 20.0, 100.0], **settings)
    pool.look(4 * WINDOW)
    assert pool.list_living() == [0, 1, 2]


def test_a_slow_replica_is_taken_out_and_starts_again_once(monkeypatch, capsys):
    pool = Pool(monkeypatch, [100.0, 20.0, 100.0], slow_factor=3.0)
    pool.look(WINDOW - 1)
    assert pool.list_living() == [0, 1, 2]
    pool.look(3)
    assert pool.list_living() == [0, 2]
    (member,) = pool.replaced
    assert not member.stays_out
    output = capsys.readouterr().out
    assert "rollout replica 1 at host:1 is lost: it samples 20 tokens/s, 5.0 times slower" in output
    assert "slow_factor=3, over 10 s" in output and "2 trajectories are sampled again" in output
    # It comes back, and is as slow.
    started = SimpleNamespace(
        replica=SimpleNamespace(server_handle=1, servers=[], workers=[]),
        address="host:1",
        port=None,
    )
    monkeypatch.setattr(pool.patrol, "_note", lambda _member: None)
    assert pool.patrol._admit(1, started, 0) is not None
    pool.look(3 * WINDOW)
    assert pool.list_living() == [0, 2]
    assert [member.stays_out for member in pool.replaced] == [False, True]
    assert "again after its restart: it stays out" in capsys.readouterr().out


def test_two_slow_ones_go_one_after_another(monkeypatch):
    pool = Pool(monkeypatch, [100.0, 10.0, 20.0, 100.0, 100.0], slow_factor=3.0)
    pool.look(WINDOW + 2)
    assert pool.list_living() == [0, 2, 3, 4]
    pool.look(WINDOW + 2)
    assert pool.list_living() == [0, 3, 4]
