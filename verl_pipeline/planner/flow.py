"""Schedules without a barrier: `rolling` and `in_flight`, by discrete events.

One queue holds every batch; the oldest is handed out first, to replicas whose weights
:func:`may_begin` allows. Publishing is not loading: the trainer publishes and goes on, and each
replica loads by itself, when it runs nothing (`rolling`) or at once (`in_flight`).

Invariants:
* Update k starts when batch k is complete and update k-1 is published, and for no other reason.
* A replica begins whatever it may and has room for; it loads the newest published weights only.
* Every trajectory is handed out once, and its versions are recorded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

import numpy as np

from verl_pipeline.planner.outcome import CAUSES, Outcome
from verl_pipeline.planner.profile import Profile
from verl_pipeline.planner.replica import Replica, Seconds, make_speed
from verl_pipeline.planner.rewards import RewardPool
from verl_pipeline.planner.schedules import Layout, Schedule
from verl_pipeline.planner.workload import Workload

_PUBLISHED = -1


@dataclass(eq=False)
class Trainer:
    """What the trainer has done; batches count from 0."""

    updates: Sequence[float]
    publish_s: float
    free: float = 0.0
    trained: int = 0
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def train(self, complete: float) -> float:
        """Train on the next batch, complete at ``complete``; return when it is published."""
        start = max(self.free, complete)
        self.starts.append(start)
        self.ends.append(start + self.updates[self.trained])
        self.trained += 1
        self.free = self.ends[-1] + self.publish_s
        return self.free


class Flow:
    """A run of a schedule without a barrier."""

    def __init__(
        self, profile: Profile, workload: Workload, schedule: Schedule, layout: Layout, steps: int
    ):
        self.schedule, self.layout, self.steps, self.profile = schedule, layout, steps, profile
        count = layout.rollout_gpus // profile.sampling.tensor_parallel
        speed = make_speed(profile.sampling, layout.slots, count)
        self.replicas = [Replica(speed) for _ in range(count)]
        batches, self.size = workload.responses.shape
        self.trainer = Trainer(
            [
                profile.training.compute_seconds(
                    tokens, profile.sampling.mean_tokens, layout.trainer_gpus
                )
                for tokens in workload.tokens[:steps].tolist()
            ],
            profile.weights.publish_s,
        )
        self.pool = RewardPool(profile.reward.workers, batches * self.size)
        # Lists: the events read single numbers.
        self.tokens = workload.responses.ravel().tolist()
        self.prompts = workload.prompts.ravel().tolist()
        self.reward_s = workload.rewards.ravel().tolist()
        self.queue = [
            batch * self.size + index
            for batch in range(batches)
            for index in workload.order(batch, layout.longest_first).tolist()
        ]
        self.front = 0
        self.published = 0
        self.left = [self.size] * batches
        self.complete = [0.0] * batches
        self.first = [-1] * len(self.queue)
        self.last = [-1] * len(self.queue)
        self.events: list[tuple[float, int, int, int]] = []
        self.number = 0

    def run(self, warm_up: int) -> Outcome:
        """Simulate until the last update is published; measure from the ``warm_up``-th one on.

        Raises:
            RuntimeError: the schedule stalls; it never should.
        """
        began, spent = 0.0, [Seconds() for _ in self.replicas]
        self.hand_out(self.replicas)
        for place in range(len(self.replicas)):
            self.expect(place)
        while self.events:
            now, _number, who, stamp = heappop(self.events)
            if who == _PUBLISHED:
                self.published += 1
                if self.published in (warm_up, self.steps):
                    for replica in self.replicas:
                        replica.advance(now)
                if self.published == warm_up:
                    began = now
                    spent = [Seconds(**vars(replica.seconds)) for replica in self.replicas]
                if self.published == self.steps:
                    return self._make_outcome(began, now, spent, warm_up)
                self.take_publication(now)
            elif stamp == self.replicas[who].stamp:
                replica = self.replicas[who]
                ended = replica.take_event(now)
                if ended is not None:
                    self.finish(ended, replica.version, now)
                    self.refill(replica)
                self.expect(who)
        raise RuntimeError(f"{self.schedule} stalls after {self.published} updates")

    def expect(self, who: int) -> None:
        """Put a replica's next event in place of the one it had."""
        replica = self.replicas[who]
        replica.stamp += 1
        if replica.running:
            self.number += 1
            heappush(self.events, (replica.find_next(), self.number, who, replica.stamp))

    def may_take(self, replica: Replica) -> bool:
        """Whether a replica may begin the next trajectory of the queue, and has room for it."""
        if self.front == len(self.queue):
            return False
        following = self.queue[self.front]
        # may_begin of batch `following // size + 1`; no batch that is trained has a trajectory left
        return following // self.size <= replica.version + self.schedule.staleness and (
            replica.has_room(self.prompts[following])
        )

    def take(self, replica: Replica) -> None:
        """Give the next trajectory of the queue to a replica."""
        following = self.queue[self.front]
        self.front += 1
        self.first[following] = replica.version
        replica.begin(following, self.tokens[following], self.prompts[following])

    def refill(self, replica: Replica) -> None:
        """Let one replica load and begin what it may, at its own time."""
        if replica.runs_nothing and replica.version < self.published:
            replica.load(self.published, self.profile.weights.load_s)
        while self.may_take(replica):
            self.take(replica)

    def hand_out(self, replicas: Sequence[Replica]) -> None:
        """Let several replicas begin what they may, the least busy first."""
        able = [(len(replica.running), place) for place, replica in enumerate(replicas)]
        heapify(able)
        while able:
            count, place = heappop(able)
            if self.may_take(replicas[place]):
                self.take(replicas[place])
                heappush(able, (count + 1, place))

    def take_publication(self, now: float) -> None:
        """New weights are on the rollout nodes: replicas load them if their schedule lets them."""
        changed = []
        for who, replica in enumerate(self.replicas):
            if self.schedule.kind == "in_flight" or replica.runs_nothing:
                replica.advance(now)
                replica.load(self.published, self.profile.weights.load_s)
                changed.append(who)
        self.hand_out([self.replicas[who] for who in changed])
        for who in changed:
            self.expect(who)

    def finish(self, trajectory: int, version: int, now: float) -> None:
        """A trajectory has ended: compute its reward, and train if its batch is the next."""
        batch = trajectory // self.size
        self.last[trajectory] = version
        rewarded = self.pool.finish(now, self.reward_s[trajectory])
        self.complete[batch] = max(self.complete[batch], rewarded)
        self.left[batch] -= 1
        trainer = self.trainer
        while trainer.trained < self.steps and not self.left[trainer.trained]:
            published = trainer.train(self.complete[trainer.trained])
            self.number += 1
            heappush(self.events, (published, self.number, _PUBLISHED, 0))

    def _make_outcome(
        self, began: float, ended: float, before: list[Seconds], warm_up: int
    ) -> Outcome:
        steps, trainer = self.steps, self.trainer
        measured, validation = steps - warm_up, self.profile.validation.seconds_per_step
        span = ended - began
        rollout = self.layout.rollout_gpus / len(self.replicas)
        spent = dict.fromkeys(CAUSES, 0.0)
        for replica, earlier in zip(self.replicas, before, strict=True):
            now = replica.seconds
            sampling, tail = now.sampling - earlier.sampling, now.tail - earlier.tail
            loading = now.loading - earlier.loading
            spent["sampling"] += rollout * sampling
            spent["tail"] += rollout * tail
            spent["rollout_weights"] += rollout * loading
            spent["rollout_idle"] += rollout * (span - sampling - tail - loading)
        update = sum(trainer.updates[warm_up:steps])
        publishing = trainer.publish_s * measured
        spent["update"] = self.layout.trainer_gpus * update
        spent["trainer_weights"] = self.layout.trainer_gpus * publishing
        spent["trainer_wait"] = self.layout.trainer_gpus * (span - update - publishing)
        gpus = self.layout.rollout_gpus + self.layout.trainer_gpus
        spent["validation"] = gpus * validation * measured
        all_time = gpus * (span + validation * measured)
        shape = (-1, self.size)
        return Outcome(
            span / measured + validation,
            trainer.ends[-1] + validation * steps,
            np.array(trainer.ends) + validation * np.arange(1, steps + 1),
            {cause: seconds / all_time for cause, seconds in spent.items()},
            np.array(self.first).reshape(shape)[:steps],
            np.array(self.last).reshape(shape)[:steps],
        )
