"""Writes the folder of a run past the barrier that never was: our schedule and dispatcher's book,
with engines that only take time.

    run = write_flow_run(tmp_path, FlowRun(staleness=2))
"""

import itertools
import json
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.helpers.made_up_run import make_header
from tests.helpers.pool_world import World
from tests.helpers.simulated_run import START, MadeUpRun
from verl_pipeline.telemetry.records import FOLDER, Moment, Pool, Span, StepRecord, TrajectoryEvent
from verl_pipeline.trainer import schedule
from verl_pipeline.trainer.schedule import Dial

TOKEN_S = 0.01
START_S = 20.0


@dataclass(frozen=True)
class FlowRun:
    """What is simulated; times in seconds.

    Attributes:
        body_s, spread: of the log-normal times of trajectories.
        long_s: of each batch's longest one; 0: there is none beyond the others.
        test_every: steps; 0 for never.
        killed_at: seconds after the start at which nothing more is written.
    """

    mode: str = "rolling"
    staleness: int = 2
    steps: int = 8
    prompts: int = 8
    group: int = 2
    replicas: int = 2
    slots: int = 8
    trainer_devices: int = 2
    rollout_devices: int = 2
    update_s: float = 6.0
    body_s: float = 4.0
    spread: float = 0.2
    long_s: float = 0.0
    load_s: float = 0.5
    publish_s: float = 0.3
    reward_s: float = 0.1
    test_every: int = 0
    save_every: int = 0
    killed_at: float | None = None
    seed: int = 0


@dataclass
class _RecordedWorld(World):
    """The world, whose events are records."""

    made: FlowRun = field(default_factory=FlowRun)
    spans: list[Span] = field(default_factory=list)
    events: list[TrajectoryEvent] = field(default_factory=list)
    now: float = START + START_S
    step: int | None = None
    loading: dict[str, tuple[float, int]] = field(default_factory=dict)
    changes: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    begun_at: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def spend(self, name, seconds, **detail):
        begin = self.now
        self._plan(begin + seconds, lambda: None)
        self._wait(lambda: self.now >= begin + seconds)
        self.span(name, begin, **detail)

    def span(self, name, begin, **detail):
        self.spans.append(
            Span(Pool.TRAINER, "driver", name, begin, self.now, self.step, detail=detail)
        )

    def tell(self, name, moment, **known):
        batch, prompt, session = self.read(name)
        known |= {"session": session, "is_validation": batch is None, "batch": batch}
        self.events.append(TrajectoryEvent(moment, self.now, prompt, **known))

    def read(self, name):
        """Batch, prompt and session of a trajectory ``b3p5`` or ``v3p5``."""
        batch, _, number = name[1:].partition("p")
        prompt, session = divmod(int(number), self.made.group)
        return int(batch) if name[0] == "b" else None, f"{name[0]}{batch}p{prompt}", session

    def publish_weights(self, version):
        self.spend("update_weights", self.made.publish_s, version=version)
        super().publish_weights(version)

    def train_batch(self, batch):
        begin = self.now
        self._wait(lambda: self._is_complete(batch))
        self.span("wait_rollout", begin)
        self.spend("update_actor", self.made.update_s * 2 / self.made.trainer_devices)
        for name in self._name_batch(batch):
            self.tell(name, Moment.TRAINED, step=batch)

    def _arrive(self, name, batch, window):
        super()._arrive(name, batch, window)
        if self.read(name)[2] == 0:
            batch, prompt, _ = self.read(name)
            self.events.append(
                TrajectoryEvent(
                    Moment.SUBMITTED, self.now, prompt, batch=batch, is_validation=batch is None
                )
            )
        self.tell(name, Moment.STARTED)

    def _begin(self, name, place):
        self._place[name] = place
        self.begun_at[name] = self.now
        self.tell(name, Moment.BEGUN, replica=place)
        self._plan(self.now + self.choose_length(name), lambda: self._end(name, place))

    def choose_length(self, name):
        random = np.random.default_rng((zlib.crc32(name.encode()), self.made.seed))
        seconds = self.made.body_s * random.lognormal(0, self.made.spread)
        self.seconds[name] = max(self.made.long_s, seconds) if name.endswith("p0") else seconds
        return self.seconds[name]

    def _act(self):
        super()._act()
        for name, replica in self.book.replicas.items():
            if replica.loading is not None and name not in self.loading:
                self.loading[name] = self.now, replica.loading

    def _finish_load(self, name):
        begin, version = self.loading.pop(name)
        detail = {"version": version}
        self.spans.append(Span(Pool.ROLLOUT, name, "load_weights", begin, self.now, detail=detail))
        self.changes[name].append((self.now, version))
        super()._finish_load(name)

    def _end(self, name, place):
        replica = self.book.replicas[place]
        if replica.loading is not None:  # frozen meanwhile
            self._plan(self.now + self.load_s, lambda: self._end(name, place))
            return
        versions = [v for at, v in self.changes[place] if at > self.begun_at[name]]
        before = [v for at, v in self.changes[place] if at <= self.begun_at[name]]
        versions = [*before[-1:], *versions]
        tokens = max(int(self.seconds[name] / TOKEN_S), 2 * len(versions))
        part = tokens // len(versions)
        spans = " ".join(f"{version}:{part}" for version in versions)
        self.tell(
            name,
            Moment.GENERATED,
            replica=place,
            first_version=versions[0],
            last_version=versions[-1],
            response_tokens=part * len(versions),
            version_spans=spans if len(versions) > 1 else None,
        )
        self.book.end(name)
        self._plan(self.now + self.made.reward_s, lambda: self._grade(name))
        self._act()

    def _grade(self, name):
        self.done.add(name)
        self.tell(name, Moment.GRADED, reward=1.0)

    def play(self):
        """From the start to the last step; returns the seconds of each step."""
        dial, last = self.dial, self.last_step
        starts = []
        for k in range(1, last + 1):
            begin = self.now
            starts.append(begin)
            self.step = k
            if k == 1:
                self.spans.append(Span(Pool.TRAINER, "driver", "start", START, begin))
                schedule.fill_pipeline(
                    self, trained_version=0, held_batches=set(), dial=dial, last_step=last
                )
            schedule.run_step(self, k, dial=dial, last_step=last)
            if self.made.save_every and k % self.made.save_every == 0:
                schedule.prepare_checkpoint(self, dial)
                self.spend("save_checkpoint", 1.0)
            if self.made.test_every and k % self.made.test_every == 0:
                test = self.now
                self.validate(k, size=self.made.group)
                self.span("testing", test)
            self.span("step", begin)
        self.spans.append(Span(Pool.TRAINER, "driver", "end", self.now, self.now))
        return np.diff([*starts, self.now]).tolist()


def write_flow_run(folder: Path, run: FlowRun) -> list[float]:
    """Simulate a run, write its records below ``folder``, and return the seconds of its steps."""
    world = _RecordedWorld(
        dial=Dial(run.mode, run.staleness),
        last_step=run.steps,
        slots={f"replica {rank}": run.slots for rank in range(run.replicas)},
        batch_size=run.prompts * run.group,
        lengths=[],
        updates=[],
        load_s=run.load_s,
        made=run,
    )
    seconds = world.play()
    header = make_header(
        MadeUpRun(
            staleness=run.staleness,
            steps=run.steps,
            prompts=run.prompts,
            group=run.group,
            replicas=run.replicas,
            slots=run.slots,
            trainer_devices=run.trainer_devices,
            rollout_devices=run.rollout_devices,
        ),
        weight_sync_mode=run.mode,
    )
    until = START + run.killed_at if run.killed_at is not None else float("inf")
    telemetry = folder / FOLDER
    telemetry.mkdir(parents=True, exist_ok=True)
    ends = itertools.accumulate(seconds, initial=world.now - sum(seconds))
    steps = [StepRecord(end, k, {"critic/score/mean": 0.5}) for k, end in enumerate(ends) if k]
    for kind, records in (
        ("run", [header]),
        ("spans", [span for span in world.spans if span.end <= until]),
        ("trajectories", [event for event in world.events if event.t <= until]),
        ("steps", [step for step in steps if step.t <= until]),
    ):
        lines = (
            {name: value for name, value in vars(record).items() if value is not None}
            for record in records
        )
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (telemetry / f"{kind}-driver-node0-1-0.jsonl").write_text(text)
    return seconds
