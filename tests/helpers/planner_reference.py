"""A slow simulation of the planner's schedules, written without its ideas: for tiny cases.

No counters, heaps, recurrences or closed forms: all that runs has seconds or tokens left, the next
moment is the smallest of them, and everything is moved there. Without a KV limit.
"""

from dataclasses import dataclass, field

INFINITE = float("inf")


@dataclass
class SlowReplica:
    version: int = 0
    loading: float = 0.0
    prefill: float = 0.0
    # [batch, index, tokens left]
    running: list = field(default_factory=list)
    queue: list = field(default_factory=list)


class SlowRun:
    """One run; ``ends`` has the end of each update, ``versions`` those that began and ended it."""

    def __init__(self, profile, workload, schedule, layout, steps):
        self.profile, self.workload, self.schedule = profile, workload, schedule
        self.layout, self.steps = layout, steps
        sampling = profile.sampling
        self.replicas = [
            SlowReplica() for _ in range(layout.rollout_gpus // sampling.tensor_parallel)
        ]
        self.size = workload.responses.shape[1]
        self.now, self.published, self.trained = 0.0, 0, 0
        self.shared = []  # of rolling and in_flight
        self.waiting_rewards, self.working = [], []  # (batch, index); [batch, seconds left]
        self.held_rewards = []  # of sync without streaming
        self.done = {}  # rewards by batch
        self.ends, self.versions = [], {}
        # What the trainer does: its name, and the seconds that it still takes.
        self.doing, self.left = "nothing", INFINITE
        self.submitted = 0

    # ---- parts

    def speed(self, replica):
        sampling = self.profile.sampling
        step = sampling.decode_base_s + sampling.decode_per_sequence_s * len(replica.running)
        return sampling.speed / step

    def begin(self, replica, batch, index):
        sampling = self.profile.sampling
        replica.running.append([batch, index, self.workload.responses[batch, index]])
        replica.prefill += self.workload.prompts[batch, index] / (
            sampling.prefill_tokens_per_s * sampling.speed
        )
        self.versions[batch, index] = [replica.version, None]

    def order(self, batch):
        indices = list(range(self.size))
        if self.layout.longest_first:
            indices.sort(key=lambda index: -self.workload.responses[batch, index])
        return indices

    def submit(self):
        """Deal the next batch to the replicas of a drained pool."""
        for place, index in enumerate(self.order(self.submitted)):
            self.replicas[place % len(self.replicas)].queue.append((self.submitted, index))
        self.submitted += 1

    def is_complete(self, batch):
        return self.done.get(batch, 0) == self.size

    def update_s(self):
        return self.profile.training.compute_seconds(
            float(self.workload.tokens[self.trained]),
            self.profile.sampling.mean_tokens,
            self.layout.trainer_gpus,
        )

    # ---- decisions

    def act(self):
        """Do all that can be done now."""
        changed = True
        while changed:
            changed = self.act_as_trainer()
            changed = self.act_as_pool() or changed
            while self.waiting_rewards and len(self.working) < self.profile.reward.workers:
                batch, index = self.waiting_rewards.pop(0)
                self.working.append([batch, self.workload.rewards[batch, index]])
                changed = True

    def act_as_trainer(self):
        if self.doing != "nothing" or self.trained == self.steps:
            return False
        kind, staleness = self.schedule.kind, self.schedule.staleness
        weights = self.profile.weights
        if kind in ("rolling", "in_flight"):
            if not self.is_complete(self.trained):
                return False
            self.doing, self.left = "update", self.update_s()
            return True
        if kind == "sync":
            if self.submitted == self.trained:
                self.submit()
                return True
            if not self.is_complete(self.trained):
                return False
            self.doing, self.left = "update", weights.switch_s + self.update_s()
            return True
        while self.submitted < staleness:  # ahead of the first step
            self.submit()
        if self.submitted == self.trained + staleness:  # the step has not begun
            if not all(self.is_complete(batch) for batch in range(self.submitted)):
                return False
            if self.published < self.trained:
                self.doing, self.left = "send", weights.publish_s + weights.load_s
            else:
                for replica in self.replicas:
                    replica.version = self.published
                self.submit()
            return True
        if not self.is_complete(self.trained):
            return False
        self.doing, self.left = "update", self.update_s()
        return True

    def act_as_pool(self):
        slots, staleness = self.layout.slots, self.schedule.staleness
        changed = False
        if self.schedule.kind not in ("rolling", "in_flight"):
            for replica in self.replicas:
                while replica.queue and len(replica.running) < slots:
                    self.begin(replica, *replica.queue.pop(0))
                    changed = True
            return changed
        if not self.shared and not self.submitted:
            self.submitted = len(self.workload.responses)
            self.shared = [
                (batch, index) for batch in range(self.submitted) for index in self.order(batch)
            ]
        for replica in self.replicas:
            if replica.version < self.published and (
                self.schedule.kind == "in_flight" or not replica.running
            ):
                replica.version = self.published
                replica.loading += self.profile.weights.load_s
                changed = True
        while self.shared:
            batch = self.shared[0][0] + 1
            able = [
                replica
                for replica in self.replicas
                if len(replica.running) < slots and batch - 1 - staleness <= replica.version < batch
            ]
            if not able:
                break
            self.begin(min(able, key=lambda replica: len(replica.running)), *self.shared.pop(0))
            changed = True
        return changed

    # ---- time

    def run(self):
        while True:
            self.act()
            if len(self.ends) == self.steps:
                return self
            step = min(
                self.left,
                *(left for _batch, left in self.working),
                *(self.find_end(replica) for replica in self.replicas),
                INFINITE,
            )
            assert step < INFINITE, "the slow simulation stalls"
            self.move(step)

    def find_end(self, replica):
        if not replica.running:
            return replica.loading or INFINITE
        tokens = min(left for _batch, _index, left in replica.running)
        return replica.loading + replica.prefill + tokens / self.speed(replica)

    def move(self, step):
        self.now += step
        for replica in self.replicas:
            left = step
            spent = min(left, replica.loading)
            replica.loading, left = replica.loading - spent, left - spent
            if not replica.running:
                continue
            spent = min(left, replica.prefill)
            replica.prefill, left = replica.prefill - spent, left - spent
            tokens = left * self.speed(replica)
            for entry in replica.running:
                entry[2] -= tokens
            for batch, index, _left in [e for e in replica.running if e[2] <= 1e-6]:
                self.versions[batch, index][1] = replica.version
                self.end_trajectory(batch, index)
            replica.running = [e for e in replica.running if e[2] > 1e-6]
        for entry in self.working:
            entry[1] -= step
        for batch, _left in [e for e in self.working if e[1] <= 1e-9]:
            self.done[batch] = self.done.get(batch, 0) + 1
        self.working = [e for e in self.working if e[1] > 1e-9]
        self.left -= step
        if self.left <= 1e-9:
            self.end_work()

    def end_trajectory(self, batch, index):
        if self.schedule.kind != "sync" or self.profile.reward.streamed_in_sync:
            self.waiting_rewards.append((batch, index))
            return
        self.held_rewards.append((batch, index))
        if len(self.held_rewards) == self.size:
            self.waiting_rewards += sorted(self.held_rewards)  # in the batch's order
            self.held_rewards = []

    def end_work(self):
        done, self.doing, self.left = self.doing, "nothing", INFINITE
        if done == "update":
            self.ends.append(self.now)
            self.trained += 1
            if self.schedule.kind in ("rolling", "in_flight"):
                self.doing, self.left = "publish", self.profile.weights.publish_s
                if not self.left:
                    self.end_work()
            elif self.schedule.kind == "sync":
                self.published = self.trained
                for replica in self.replicas:
                    replica.version = self.published
        elif done == "send":
            self.published = self.trained
        elif done == "publish":
            self.published = self.trained
