"""Writes the folder of a run that never was.

    story = write_run(tmp_path, MadeUpRun(steps=5, reward_s=30.0))

Invariants:
* Lines are made of the dataclasses of ``records.py``.
* The same ``MadeUpRun`` gives the same files.
"""

import gzip
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.simulated_run import START, Group, MadeUpRun, Simulation
from verl_pipeline.telemetry.records import (
    FOLDER,
    FORMAT,
    Gauge,
    Header,
    Moment,
    StepRecord,
    Text,
    TrajectoryEvent,
)

REWARD_WORKERS = 4
_TEXTS = ("prompt", "replica", "reward_worker")


@dataclass
class Story:
    """What happened: ``step_s`` by step, from its start to the next one's."""

    folder: Path
    step_s: list[float]
    trajectories: int


def write_run(folder: Path, run: MadeUpRun) -> Story:
    """Simulate a run and write what it would have written below ``folder``."""
    simulation = Simulation(run)
    simulation.play()
    telemetry = folder / FOLDER
    telemetry.mkdir(parents=True, exist_ok=True)
    until = START + run.killed_at if run.killed_at is not None else float("inf")
    _write(telemetry / "run-driver-node0-1-0.jsonl", [make_header(run)])
    spans = sorted(simulation.spans, key=lambda span: span.end)
    _write(telemetry / "spans-driver-node0-1-0.jsonl", [s for s in spans if s.end <= until])
    with (telemetry / "trajectories-agent_loop-node0-2-0.jsonl").open("w") as file:
        for group in simulation.groups:
            _write_group(file, simulation, group, until)
    for number in range(run.replicas):
        gauges = _make_gauges(simulation, number)
        path = telemetry / f"gauges-replica-node1-{number}-0.jsonl"
        _write(path, [gauge for gauge in gauges if gauge.t <= until])
    starts = simulation.step_starts
    records = [
        StepRecord(end, k, {"critic/rewards/mean": 0.2 + 0.5 * k / run.steps, "actor/entropy": 0.4})
        for k, end in enumerate(starts[1:], 1)
    ]
    _write(telemetry / "steps-driver-node0-1-0.jsonl", [r for r in records if r.t <= until])
    _write_texts(telemetry / "texts-agent_loop-node0-2-0.jsonl.gz", simulation, until)
    return Story(folder, np.diff(starts).tolist(), simulation.count)


def make_header(run: MadeUpRun, **changes: Any) -> Header:
    shares = run.mode == "sync"
    values: dict[str, Any] = {
        "format": FORMAT,
        "role": "driver",
        "host": "node0",
        "pid": 1,
        "started": START,
        "run_name": "made up",
        "mode": run.mode,
        "staleness": run.staleness if run.mode == "one_off_pipeline" else None,
        "trainer_devices": run.trainer_devices,
        "rollout_devices": run.trainer_devices if shares else run.rollout_devices,
        "shares_devices": shares,
        "replicas": run.replicas,
        "slots": run.slots,
        "group_size": run.group,
        "batch_size": run.prompts,
        "first_step": 1,
        "last_step": run.steps,
        "versions": {"verl-pipeline": "0"},
    }
    return Header(**values | changes)


def _write(path: Path, records: list[Any]) -> None:
    path.write_text("".join(_dump(record) + "\n" for record in records))


def _dump(record: Any) -> str:
    """A record's line; what is not known, or as by default, is left out."""
    defaults = {field.name: field.default for field in fields(record)}
    known = {n: v for n, v in vars(record).items() if v != defaults[n] and v is not None}
    return json.dumps(known)


def make_prompt(group: Group, position: int) -> str:
    return f"{'v' if group.is_validation else 'b'}{group.batch}p{position}"


def _make_line(moment: Moment, *names: str, **known: Any) -> str:
    """A line of an event, to be completed (with ``%``) by the values of ``names``."""
    marks = {name: f"@{name}@" for name in ("t", "prompt", *names)}
    line = _dump(TrajectoryEvent(moment=moment, **known | marks)).replace("%", "%%")
    for name, mark in marks.items():
        text = f"%({name})s"
        line = line.replace(f'"{mark}"', f'"{text}"' if name in _TEXTS else text)
    return line + "\n"


def _write_group(file: Any, simulation: Simulation, group: Group, until: float) -> None:
    run = simulation.run
    simulation.finish(group)
    assert group.generated is not None and group.graded is not None
    size = 1 if group.is_validation else run.group
    batch = {"batch": None if group.is_validation else group.batch}
    known: dict[str, Any] = batch | {"is_validation": group.is_validation}
    made = {"first_version": group.version, "last_version": group.version, "prompt_tokens": 50}
    submitted = _make_line(Moment.SUBMITTED, "row", **known)
    started = _make_line(Moment.STARTED, "session", **known)
    names = ("session", "first_token", "response_tokens", "replica")
    generated = _make_line(Moment.GENERATED, *names, limit=run.limit, **made, **known)
    names = ("session", "reward", "reward_worker")
    graded = _make_line(Moment.GRADED, *names, verdict="accepted", **known)
    known["step"] = group.batch
    left = _make_line(Moment.FILTERED, "session", reason="zero_variance", **known)
    trained = _make_line(Moment.TRAINED, "session", **known)
    random = np.random.default_rng((run.seed, group.first))
    rewards = random.integers(0, 2, group.size).tolist()
    filtered = random.random(group.size // size) < run.filtered_share
    lines: list[tuple[float, str]] = []
    for i in range(group.size):
        position, session = divmod(i, size)
        number = i % run.replicas
        values = {
            "prompt": make_prompt(group, position),
            "session": session,
            "row": position,
            "response_tokens": int(group.lengths[i]),
            "first_token": simulation.replicas[number].begun[group.first + i] + run.token_s,
            "replica": f"replica {number}",
            "reward": float(rewards[i]),
            "reward_worker": f"reward worker {i % REWARD_WORKERS}",
        }
        moments = [(group.submitted, submitted)] if session == 0 else []
        moments += [(group.submitted, started), (float(group.generated[i]), generated)]
        moments += [(float(group.graded[i]), graded)]
        if group.trained is not None:
            moments.append((group.trained, left if filtered[position] else trained))
        lines += [(t, line % (values | {"t": t})) for t, line in moments if t <= until]
    lines.sort(key=lambda pair: pair[0])
    file.writelines(line for _, line in lines)


def _make_gauges(simulation: Simulation, number: int) -> list[Gauge]:
    run, replica = simulation.run, simulation.replicas[number]
    groups = simulation.groups
    mine = [(group, i) for group in groups for i in range(number, group.size, run.replicas)]
    trajectories = [group.first + i for group, i in mine]
    submitted = [group.submitted for group, _ in mine]
    begun = np.sort([replica.begun[i] for i in trajectories])
    ends = np.array([replica.done[i] for i in trajectories])
    times = np.arange(START, simulation.now, run.gauge_every_s)
    here = np.searchsorted(begun, times, side="right")
    gone = np.searchsorted(np.sort(ends), times, side="right")
    asked = np.searchsorted(np.sort(submitted), times, side="right")
    tokens = _count_tokens(simulation, number, begun, np.sort(ends), times)
    slots = run.slots or max(len(trajectories), 1)
    return [
        Gauge(
            f"replica {number}",
            float(t),
            running=float(here[i] - gone[i]),
            waiting=float(asked[i] - here[i]),
            kv_share=min(1.0, float(here[i] - gone[i]) / slots),
            generated_tokens=float(tokens[i]),
            preemptions=0.0,
        )
        for i, t in enumerate(times)
    ]


def _count_tokens(
    simulation: Simulation, number: int, begun: np.ndarray, ends: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """Tokens that a replica has decoded at each of the times; ``begun`` and ``ends`` ascend."""
    run, slowness = simulation.run, simulation.replicas[number].slowness
    pauses = [(s.start, s.end) for s in simulation.spans if s.name == "update_weights"]
    edges = np.unique(np.concatenate([begun, ends, times, *pauses]))
    running = np.searchsorted(begun, edges, side="right") - np.searchsorted(ends, edges, "right")
    rate = running / ((run.token_s + run.load_s * running) * slowness)
    for start, end in pauses:
        rate[(edges >= start) & (edges < end)] = 0.0
    tokens = np.concatenate([[0.0], np.cumsum(rate[:-1] * np.diff(edges))])
    return tokens[np.searchsorted(edges, times)]


def _write_texts(path: Path, simulation: Simulation, until: float) -> None:
    with path.open("wb") as file:
        for group in simulation.groups:
            if group.trained is None or group.trained > until:
                continue
            texts = [
                Text(
                    make_prompt(group, 0),
                    session,
                    group.batch,
                    f"What is {group.batch} + {session}?",
                    f"It is {group.batch + session}.",
                    ground_truth=str(group.batch + session),
                    token_versions=[[group.version, 6]],
                )
                for session in range(min(simulation.run.texts_a_step, simulation.run.group))
            ]
            lines = "".join(_dump(text) + "\n" for text in texts)
            file.write(gzip.compress(lines.encode()))
