"""A run whose parts are killed with -9, one after another, at instants drawn from a seed.

``python -m tests.chaos.killed_parts FOLDER --seed 1 --kills 20`` kills processes of rollout
replicas, agent loop workers and reward workers of one run with ``rolling`` weights, prints what hit
when and what it cost, and compares the batches with those of a run that nobody disturbs. No kill
may end the run.
"""

import argparse
import json
import math
import random
import re
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tests.e2e.test_past_the_barrier import list_violations
from tests.e2e.test_past_the_barrier import make_overrides as make_tailed_overrides
from tests.helpers.training_run import check_clean, tail
from verl_pipeline.run_end import read_name
from verl_pipeline.testing import runs
from verl_pipeline.trainer.schedule import ROLLING

MODE, STALENESS, REPLICAS = ROLLING, 2, 2
PIPELINE = "trainer.v1.one_off_pipeline"
DEADLINE_S, POLL_S = 2400.0, 0.1
# Steps between two kills, of which the kill hits any moment, and before the first.
SPACING, FIRST = 8, 4
# By kind, the beginnings of the titles of its processes, and the line that tells of the successor.
TITLES = {
    "replica": ("VLLM::Engine", "ray::VersionedServer", "ray::CheckpointEngineWorker"),
    "agent loop worker": ("ray::RecordingLongTail",),
    "reward worker": ("ray::RewardLoopWorker",),
}
BACK = {
    "replica": re.compile(r"has taken the place of the one lost"),
    "agent loop worker": re.compile(r"agent loop worker \d+ died: .*another one takes its place"),
    "reward worker": re.compile(r"reward worker \d+: .*another one takes its place"),
}
# The shortest title that Linux tells of every process.
SHOWN = 15


@dataclass(frozen=True)
class PartKill:
    """One kill.

    Attributes:
        kind: a key of :data:`TITLES`.
        title: of the process.
        step: the last step that had been logged.
        back_s: until the run had another one in its place.
        held_s: by which the longest step from then on, up to the next kill, took longer than the
            median step.
    """

    number: int
    kind: str
    title: str
    step: int
    back_s: float | None
    held_s: float

    def __str__(self) -> str:
        back = "not before the run's end" if self.back_s is None else f"after {self.back_s:.1f} s"
        return (
            f"kill {self.number}: {self.title} ({self.kind}) after step {self.step}; replaced "
            f"{back}, the run held up by {self.held_s:.1f} s"
        )


def make_overrides(folder: Path, steps: int) -> list[str]:
    """Overrides of the run, with two of each kind of part."""
    return [
        *make_tailed_overrides(folder, MODE, STALENESS, replicas=REPLICAS),
        f"+{PIPELINE}.deadlines.health_check_every_s=1",
        "actor_rollout_ref.rollout.agent.num_workers=2",
        "reward.num_workers=2",
        "trainer.total_epochs=100000",
        f"trainer.total_training_steps={steps}",
    ]


class PartKiller:
    """Kills parts of the run in ``folder``; called about twice a second with its processes."""

    def __init__(self, folder: Path, kills: int, seed: int):
        self._folder, self._kills, self._dice = folder, kills, random.Random(seed)
        self._processes: list[psutil.Process] = []
        # Times of kills, and what they hit.
        self.hits: list[tuple[float, str, str, int]] = []
        # By kind, when lines told of a successor; when each step was logged.
        self.backs: dict[str, list[float]] = defaultdict(list)
        self.logged: dict[int, float] = {}
        self._aim = self._draw()

    def _draw(self) -> tuple[str, int, float]:
        """What to kill next, after which step, and how many seconds later."""
        step = FIRST + SPACING * len(self.hits) + self._dice.randrange(SPACING // 2)
        return self._dice.choice(list(TITLES)), step, self._dice.random()

    def look(self, processes: list[psutil.Process]) -> None:
        """Note what the run has told, and kill if it is time."""
        now = time.monotonic()
        for step in runs.read_metrics(self._folder):
            self.logged.setdefault(step, now)
        output = (self._folder / runs.OUTPUT).read_text(errors="replace")
        for kind, line in BACK.items():
            found = len(line.findall(output))
            self.backs[kind] += [now] * (found - len(self.backs[kind]))
        kind, step, seconds = self._aim
        is_time = step in self.logged and now >= self.logged[step] + seconds
        if len(self.hits) == self._kills or not is_time or self._is_open():
            return
        victims = [
            (one, name)
            for one in processes
            if one.is_running() and (name := read_name(one)).startswith(_shorten(TITLES[kind]))
        ]
        assert victims, f"no {kind} is there: {sorted({read_name(one) for one in processes})}"
        victim, name = self._dice.choice(victims)
        victim.kill()
        self.hits.append((time.monotonic(), kind, name, max(self.logged)))
        print(f"hit {len(self.hits)}: {name}, after step {max(self.logged)}", flush=True)
        self._aim = self._draw()

    def _is_open(self) -> bool:
        """Whether a part is not back yet; all of a kind dead at once is another test."""
        counts = {kind: sum(hit[1] == kind for hit in self.hits) for kind in TITLES}
        return any(len(self.backs[kind]) < count for kind, count in counts.items())

    def list_kills(self) -> list[PartKill]:
        """What each kill cost."""
        times = sorted(self.logged.values())
        gaps = [(end, end - begin) for begin, end in zip(times, times[1:], strict=False)]
        median = statistics.median(gap for _end, gap in gaps)
        seen: dict[str, int] = defaultdict(int)
        kills = []
        for number, (at, kind, title, step) in enumerate(self.hits, start=1):
            told = self.backs[kind][seen[kind] :]
            back = told[0] - at if told else None
            seen[kind] += 1
            until = self.hits[number][0] if number < len(self.hits) else times[-1]
            after = [gap for end, gap in gaps if at <= end <= until]
            held = max(0.0, max(after, default=median) - median)
            kills.append(PartKill(number, kind, title, step, back, held))
        return kills


def _shorten(titles: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(title[:SHOWN] for title in titles)


def run_and_kill(folder: Path, kills: int, seed: int, steps: int) -> tuple[runs.Run, PartKiller]:
    """The run, which must go on to its end whatever is killed."""
    process = runs.start_run(folder, make_overrides(folder, steps), module=runs.STOCK)
    killer, seen = PartKiller(folder, kills, seed), {}
    began = time.monotonic()
    try:
        while process.poll() is None and time.monotonic() < began + DEADLINE_S:
            seen.update({child.pid: child for child in runs.list_descendants(process.pid)})
            killer.look(list(seen.values()))
            time.sleep(POLL_S)
    finally:
        run = runs.collect_run(folder, process, list(seen.values()))
    return run, killer


def check_undisturbed(run: runs.Run, whole: runs.Run, steps: int) -> None:
    """The killed run went on to its end, and trained the batches of the other."""
    assert run.returncode == 0, tail(run)
    assert sorted(run.metrics) == list(range(1, steps + 1))
    # A worker that died may have recorded a trajectory that was then sampled again.
    latest = {(row["step"], row["index"], row["session"]): row for row in run.trajectories}
    wanted = {(row["step"], row["index"], row["session"]) for row in whole.trajectories}
    assert set(latest) == wanted
    once = runs.Run(0, "", run.metrics, list(latest.values()), [], [])
    assert list_violations(once, MODE, STALENESS) == []
    for metrics in run.metrics.values():
        assert metrics["pipeline/infrastructure/share"] == 0
    check_clean(run)


def print_table(kills: list[PartKill]) -> None:
    """Median and worst seconds by kind."""
    for kind in TITLES:
        of_kind = [kill for kill in kills if kill.kind == kind]
        if of_kind:
            back = sorted(math.inf if kill.back_s is None else kill.back_s for kill in of_kind)
            held = sorted(kill.held_s for kill in of_kind)
            print(
                f"{kind}: {len(of_kind)} kills; replaced after {statistics.median(back):.1f} s "
                f"(worst {back[-1]:.1f}), held up {statistics.median(held):.1f} s "
                f"(worst {held[-1]:.1f})",
                flush=True,
            )


def kill_parts(folder: Path, kills: int, seed: int) -> list[PartKill]:
    """Kill so many parts of a run in ``folder``, and compare it with an undisturbed one."""
    steps = FIRST + SPACING * (kills + 1)
    run, killer = run_and_kill(folder / f"killed-{seed}", kills, seed, steps)
    assert run.returncode == 0, tail(run)
    found = killer.list_kills()
    assert len(found) == kills, f"the run ended after {len(found)} of {kills} kills"
    with (folder / "kills.jsonl").open("a") as file:
        for kill in found:
            print(kill, flush=True)
            file.write(json.dumps(asdict(kill) | {"seed": seed}) + "\n")
    print_table(found)
    whole_folder = folder / f"whole-{seed}"
    overrides = make_overrides(whole_folder, steps)
    whole = runs.run_training(whole_folder, overrides, module=runs.STOCK)
    assert whole.returncode == 0, tail(whole)
    check_undisturbed(run, whole, steps)
    print(f"{steps} steps, {len(whole.trajectories)} trajectories as undisturbed", flush=True)
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    runs.warm_up_runs()
    kill_parts(given.folder.resolve(), given.kills, given.seed)
    sys.exit(0)


if __name__ == "__main__":
    main()
