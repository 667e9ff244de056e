"""A training run that never was, simulated event by event, with given seconds for each phase.

A replica decodes one token of each of its ``n`` running sequences in ``token_s + load_s * n``
seconds; what exceeds its slots waits. Rewards are worked off in the order in which they come.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from verl_pipeline.telemetry.records import Pool, Span

START = 1_750_000_000.0
PHASES = {"old_log_prob": 2.0, "ref": 1.0, "adv": 0.25, "update_actor": 8.0}


@dataclass(frozen=True)
class MadeUpRun:
    """What is simulated; times in seconds.

    Attributes:
        mode: ``one_off_pipeline``, ``sync`` or ``separate_async``.
        phases: the trainer's own, by span name, with ``trainer_devices`` of 2; more go faster.
        median_tokens, spread: of the log-normal lengths, cut at ``limit``.
        reward_workers: None: as many as there are trajectories.
        slow_replicas: by number: how many times slower it decodes.
        save_every, test_every: steps; 0 for never.
        killed_at: seconds after the start at which nothing more is written.
    """

    mode: str = "one_off_pipeline"
    staleness: int = 1
    steps: int = 4
    prompts: int = 8
    group: int = 4
    replicas: int = 2
    slots: int | None = 64
    trainer_devices: int = 2
    rollout_devices: int = 2
    phases: dict[str, float] = field(default_factory=lambda: dict(PHASES))
    median_tokens: float = 400.0
    spread: float = 0.6
    limit: int = 2000
    token_s: float = 0.01
    load_s: float = 0.0005
    reward_s: float = 0.5
    reward_workers: int | None = None
    slow_replicas: dict[int, float] = field(default_factory=dict)
    start_s: float = 20.0
    sync_s: float = 1.5
    save_every: int = 0
    save_s: float = 3.0
    test_every: int = 0
    test_prompts: int = 4
    filtered_share: float = 0.1
    gauge_every_s: float = 1.0
    texts_a_step: int = 2
    killed_at: float | None = None
    seed: int = 0


class Replica:
    """Decodes sequences; its time moves in tokens that each running sequence has got."""

    def __init__(self, run: MadeUpRun, number: int):
        self.slots = run.slots or 1 << 30
        self.slowness = run.slow_replicas.get(number, 1.0)
        self.token_s, self.load_s = run.token_s, run.load_s
        self.now, self.tokens = START, 0.0
        self.queue: deque[tuple[int, int]] = deque()
        self.running: list[tuple[float, int]] = []
        self.done: dict[int, float] = {}
        self.begun: dict[int, float] = {}

    def submit(self, at: float, sequences: list[tuple[int, int]]) -> None:
        """Add (trajectory, tokens) at a time that is not before any earlier call's."""
        self.advance(at)
        self.now = max(self.now, at)
        self.queue.extend(sequences)
        self._fill()

    def pause(self, start: float, end: float) -> None:
        self.advance(start)
        self.now = max(self.now, end)

    def advance(self, until: float) -> None:
        """Decode up to a moment."""
        while self.running and self._get_next_end() <= until:
            self.complete_next()
        if self.running and until > self.now:
            self.tokens += (until - self.now) / self._get_pace()
            self.now = until

    def complete_next(self) -> None:
        """Decode up to the end of the sequence that ends next."""
        end = self._get_next_end()
        self.tokens, trajectory = heapq.heappop(self.running)
        self.now = self.done[trajectory] = end
        self._fill()

    def _get_next_end(self) -> float:
        return self.now + (self.running[0][0] - self.tokens) * self._get_pace()

    def _get_pace(self) -> float:
        return (self.token_s + self.load_s * len(self.running)) * self.slowness

    def _fill(self) -> None:
        while self.queue and len(self.running) < self.slots:
            trajectory, tokens = self.queue.popleft()
            self.begun[trajectory] = self.now
            heapq.heappush(self.running, (self.tokens + tokens, trajectory))


@dataclass
class Group:
    """Trajectories that were submitted together: a batch, or a validation."""

    batch: int
    submitted: float
    version: int
    first: int
    size: int
    lengths: np.ndarray
    is_validation: bool = False
    generated: np.ndarray | None = None
    graded: np.ndarray | None = None
    trained: float | None = None


class Simulation:
    def __init__(self, run: MadeUpRun):
        self.run = run
        self.random = np.random.default_rng(run.seed)
        self.replicas = [Replica(run, number) for number in range(run.replicas)]
        self.groups: list[Group] = []
        self.spans: list[Span] = []
        self.now, self.version, self.count = START, -1, 0
        self.step_starts: list[float] = []
        self.step: int | None = None

    def play(self) -> None:
        run = self.run
        self.spend("start", run.start_s)
        plays = {"one_off_pipeline": self.play_one_off, "sync": self.play_sync}
        plays.get(run.mode, self.play_separate)()
        self.step_starts.append(self.now)
        self.spans.append(Span(Pool.TRAINER, "driver", "end", self.now, self.now))

    def play_one_off(self) -> None:
        run, batches = self.run, {}
        self.sync(0)
        for batch in range(1, min(run.staleness, run.steps) + 1):
            batches[batch] = self.submit(batch)
        for k in range(1, run.steps + 1):
            start = self.begin_step(k)
            for group in batches.values():
                self.wait(group)
            if self.version != k - 1:
                self.sync(k - 1)
            if k + run.staleness <= run.steps:
                batches[k + run.staleness] = self.submit(k + run.staleness)
            group = batches.pop(k)
            self.wait(group)
            self.train(group)
            self.end_step(k, start, batches)

    def play_sync(self) -> None:
        self.sync(0)
        for k in range(1, self.run.steps + 1):
            start = self.begin_step(k)
            group = self.submit(k)
            self.wait(group, "gen")
            self.train(group)
            self.sync(k)
            self.end_step(k, start, {})

    def play_separate(self) -> None:
        """One batch ahead; weights interrupt what is generated."""
        run = self.run
        self.sync(0)
        batches = {1: self.submit(1)}
        for k in range(1, run.steps + 1):
            start = self.begin_step(k)
            if k < run.steps:
                batches[k + 1] = self.submit(k + 1)
            group = batches.pop(k)
            self.wait(group, "gen")
            self.train(group)
            self.sync(k)
            self.end_step(k, start, {})

    def begin_step(self, k: int) -> float:
        self.step = k
        self.step_starts.append(self.now)
        return self.now

    def end_step(self, k: int, start: float, ahead: dict[int, Group]) -> None:
        run = self.run
        if run.save_every and k % run.save_every == 0:
            begin = self.now
            for group in ahead.values():
                self.wait(group)
            self.now += run.save_s
            self.span("save_checkpoint", begin)
        self.span("step", start)
        if run.test_every and k % run.test_every == 0:
            begin = self.now
            for group in ahead.values():
                self.wait(group)
            if self.version != k:
                self.sync(k)
            group = self.submit(k, is_validation=True)
            self.now = self.finish(group)
            self.span("testing", begin)

    def submit(self, batch: int, is_validation: bool = False) -> Group:
        run = self.run
        size = run.test_prompts if is_validation else run.prompts * run.group
        drawn = self.random.lognormal(np.log(run.median_tokens), run.spread, size)
        lengths = np.clip(drawn, 1, run.limit).astype(int)
        for number, replica in enumerate(self.replicas):
            mine = range(number, size, run.replicas)
            replica.submit(self.now, [(self.count + i, int(lengths[i])) for i in mine])
        group = Group(batch, self.now, self.version, self.count, size, lengths, is_validation)
        self.count += size
        self.groups.append(group)
        return group

    def finish(self, group: Group) -> float:
        """Generate and grade a group; return when it is complete."""
        if group.graded is None:
            generated = np.empty(group.size)
            for number, replica in enumerate(self.replicas):
                for i in range(number, group.size, self.run.replicas):
                    while group.first + i not in replica.done:
                        replica.complete_next()
                    generated[i] = replica.done[group.first + i]
            group.generated, group.graded = generated, self.grade(generated)
        return float(group.graded.max())

    def grade(self, generated: np.ndarray) -> np.ndarray:
        run = self.run
        if run.reward_workers is None:
            return generated + run.reward_s
        free = [0.0] * run.reward_workers
        graded = np.empty_like(generated)
        for i in np.argsort(generated, kind="stable"):
            graded[i] = max(heapq.heappop(free), generated[i]) + run.reward_s
            heapq.heappush(free, graded[i])
        return graded

    def wait(self, group: Group, name: str = "wait_rollout") -> None:
        begin = self.now
        self.now = max(self.now, self.finish(group))
        self.span(name, begin)

    def train(self, group: Group) -> None:
        for name, seconds in self.run.phases.items():
            self.spend(name, seconds * 2 / self.run.trainer_devices)
        group.trained = self.now

    def sync(self, version: int) -> None:
        begin = self.now
        self.spend("update_weights", self.run.sync_s)
        for replica in self.replicas:
            replica.pause(begin, self.now)
        self.version = version

    def spend(self, name: str, seconds: float) -> None:
        self.now += seconds
        self.span(name, self.now - seconds)

    def span(self, name: str, start: float) -> None:
        self.spans.append(Span(Pool.TRAINER, "driver", name, start, self.now, self.step))
