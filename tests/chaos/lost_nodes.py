"""A run that nodes of Ray join and leave: raylets on this machine, killed with all below them.

``python -m tests.chaos.lost_nodes FOLDER --seed 1 --nodes 5`` starts a run with one replica beside
the trainer that may have :data:`MOST`. One node after another joins; each is killed at an instant
drawn from a seed, while its replicas start or after they have joined. It prints what hit when and
what it cost. No loss may end the run.
"""

import argparse
import contextlib
import os
import random
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.e2e.test_past_the_barrier import list_violations, make_overrides
from tests.helpers.stopped_run import STOP
from tests.helpers.training_run import list_unknown_metrics, tail
from verl_pipeline import shared_memory
from verl_pipeline.fork_server.client import RAY_HOOK
from verl_pipeline.run_end import remove_sockets
from verl_pipeline.testing import equivalence, runs
from verl_pipeline.trainer.schedule import ROLLING
from verl_pipeline.verl_adapter.placement.ray_slots import CPUS_PER_ROLLOUT_DEVICE

MODE, STALENESS, MOST = ROLLING, 2, 3
PIPELINE = "+trainer.v1.one_off_pipeline"
DEADLINE_S, POLL_S, TRIES = 2400.0, 0.1, 4
# Steps of which nobody waits for the end: the run is ended by its callback once the nodes are done.
LAST_STEP = 100000
STEPS_PER_EPOCH = equivalence.ROWS // equivalence.BATCH
JOINED = re.compile(r"rollout replica \d+ at \S+ has joined at a new place")
LOST = re.compile(r"trajectories are sampled again by the \d+ of \d+ replicas")
AGENT_PORTS = (
    "--dashboard-agent-grpc-port",
    "--dashboard-agent-listen-port",
    "--runtime-env-agent-port",
    "--metrics-export-port",
)
# What `ray start` says once its node is there.
STARTED = "Ray runtime started"
# What a started replica adds to a node's life before it is killed, at most.
LONGEST_LIFE_S = 10.0


@dataclass
class LostNode:
    """A node that joined and was killed.

    Attributes:
        devices: replicas that it had room for.
        joined_s: until each of its replicas took part.
        lost_s: from the kill until the run had missed all of those.
        held_s: from the kill to the end of the first step after that.
    """

    number: int
    devices: int
    joined_s: list[float] = field(default_factory=list)
    lost_s: float = 0.0
    held_s: float = 0.0

    def __str__(self) -> str:
        joined = ", ".join(f"{seconds:.0f} s" for seconds in self.joined_s) or "none"
        return (
            f"node {self.number} with {self.devices} devices: replicas that joined: {joined}; "
            f"killed, its loss known after {self.lost_s:.1f} s, the next step ended after "
            f"{self.held_s:.1f} s"
        )


class NodeRun:
    """A run in ``folder``, and the nodes that join it."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self._dice = folder, random.Random(seed)
        self._stop = folder / "stop"
        overrides = [
            *make_overrides(folder, MODE, STALENESS, replicas=1),
            f"{PIPELINE}.deadlines.health_check_every_s=1",
            f"{PIPELINE}.max_replicas={MOST}",
            "ray_kwargs.ray_init.num_gpus=2",
            "trainer.total_epochs=1000000",
            f"trainer.total_training_steps={LAST_STEP}",
            "trainer.save_freq=1",
            "trainer.max_actor_ckpt_to_keep=1",
            f"trainer.default_local_dir={folder}/checkpoints",
            "trainer.checkpoint_callback_class=tests.helpers.stopped_run.StopWhenAsked",
        ]
        self.process = runs.start_run(
            folder, overrides, module=runs.STOCK, **{STOP: str(self._stop)}
        )
        self._seen: dict[int, psutil.Process] = {}

    def read_output(self) -> str:
        return (self.folder / runs.OUTPUT).read_text(errors="replace")

    def count_lines(self, pattern: re.Pattern[str]) -> int:
        """Different lines that match: each node's log monitor prints what this machine logs."""
        return len(set(filter(pattern.search, self.read_output().splitlines())))

    def wait_for(self, condition, what: str):
        """Return what ``condition`` returns, once that is something true."""
        began = time.monotonic()
        while not (found := condition()):
            assert self.process.poll() is None, f"the run ended: {self.read_output()[-6000:]}"
            waited = time.monotonic() - began
            assert waited < DEADLINE_S / 8, f"{what}: {self.read_output()[-6000:]}"
            self._look()
            time.sleep(POLL_S)
        return found

    def _look(self) -> None:
        below = runs.list_descendants(self.process.pid)
        self._seen.update({one.pid: one for one in below})

    def count_steps(self) -> int:
        return max(runs.read_metrics(self.folder), default=0)

    def find_ray(self) -> tuple[str, dict[str, str]]:
        """The address of the run's Ray, and the environment of its processes."""
        for one in runs.list_descendants(self.process.pid):
            found = re.search(r"--gcs-address=(\S+)", " ".join(one.cmdline()))
            if found and one.name() == "raylet":
                return found[1], one.environ()
        raise AssertionError("the run has no Ray")

    def lose_node(self, number: int) -> LostNode:
        """Let a node join, and kill it with all that is on it."""
        node = LostNode(number, self._dice.randint(1, MOST - 1))
        waits = self._dice.randint(0, node.devices) if number else node.devices
        life_s = self._dice.random() * LONGEST_LIFE_S
        joined, lost = map(self.count_lines, (JOINED, LOST))
        before = {one.pid for one in runs.list_descendants(self.process.pid)}
        began = time.monotonic()
        raylet = self._start_node(node.devices)
        try:
            for place in range(waits):
                self.wait_for(
                    lambda place=place: self.count_lines(JOINED) > joined + place,
                    f"replica {place + 1} of {node.devices} of node {number}",
                )
                node.joined_s.append(time.monotonic() - began)
            until = time.monotonic() + life_s
            self.wait_for(lambda: time.monotonic() > until, "the node's life")
        finally:
            kill_node(raylet, self.process.pid, before)
        killed = time.monotonic()
        # One more may have joined meanwhile.
        here = self.count_lines(JOINED) - joined
        step = self.count_steps()
        self.wait_for(lambda: self.count_lines(LOST) >= lost + here, "its loss")
        node.lost_s = time.monotonic() - killed
        self.wait_for(lambda: self.count_steps() > step, "a step")
        node.held_s = time.monotonic() - killed
        print(node, flush=True)
        return node

    def _start_node(self, devices: int) -> subprocess.Popen:
        """A node that Ray has; on a busy machine it may need another try."""
        log = self.folder / "nodes.log"
        for _ in range(TRIES):
            log.unlink(missing_ok=True)
            node = start_node(log, devices, *self.find_ray())
            self.wait_for(
                lambda node=node: node.poll() is not None or STARTED in log.read_text(),
                "a node of Ray",
            )
            if node.poll() is None:
                return node
        raise AssertionError(log.read_text()[-3000:])

    def stop(self) -> runs.Run:
        """Let the run end after the next step."""
        self._stop.touch()
        began = time.monotonic()
        while self.process.poll() is None and time.monotonic() < began + DEADLINE_S / 8:
            self._look()
            time.sleep(POLL_S)
        return self.collect()

    def collect(self) -> runs.Run:
        """End what is left."""
        return runs.collect_run(self.folder, self.process, list(self._seen.values()))


def find_free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens at now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


def start_node(
    log: Path, devices: int, address: str, environment: dict[str, str]
) -> subprocess.Popen:
    """A node of the run's Ray, on this machine."""
    cpus = CPUS_PER_ROLLOUT_DEVICE * devices
    command = ["start", f"--address={address}", f"--num-cpus={cpus}", f"--num-gpus={devices}"]
    environment = {name: environment[name] for name in environment if name not in RAY_HOOK}
    # Two nodes on one machine would take the same ones; for one that it may choose itself, an agent
    # has 15 s to start and tell, which a busy machine does not give.
    ports = zip(AGENT_PORTS, find_free_ports(len(AGENT_PORTS)), strict=True)
    command += [f"{option}={port}" for option, port in ports]
    command += ["--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=150000000"]
    with open(log, "w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *command, "--block"],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def kill_node(node: subprocess.Popen, run: int, before: set[int]) -> None:
    """Kill all of a node's processes, as when its machine stops; tidies what they leave here.

    Args:
        run: whose fork server has started the node's workers.
        before: processes that the run had before the node joined.
    """
    segments = set()
    for _ in range(3):  # what starts meanwhile
        own = [psutil.Process(node.pid)] if psutil.pid_exists(node.pid) else []
        below = [*own, *runs.list_descendants(node.pid), *runs.list_descendants(run)]
        for one in below:
            if one.pid in before:
                continue
            with contextlib.suppress(psutil.Error):
                segments |= set(shared_memory.find_mapped_segments(one))
            with contextlib.suppress(psutil.Error):
                one.kill()
        time.sleep(POLL_S)
    node.wait()
    for segment in set(shared_memory.find_unused_segments()) & segments:
        segment.unlink(missing_ok=True)
    remove_sockets()


def lose_nodes(folder: Path, nodes: int, seed: int) -> list[LostNode]:
    """So many nodes join a run and are lost, and a last one stays until its end."""
    run = NodeRun(folder, seed)
    try:
        run.wait_for(lambda: run.count_steps() >= 2, "two steps")
        lost = [run.lose_node(number) for number in range(nodes)]
        finished = run.stop()
    except BaseException:
        run.collect()
        raise
    check_run(finished)
    return lost


def check_run(run: runs.Run) -> None:
    """Nothing was lost, and nothing is left."""
    assert "planted stop" in run.output, tail(run)
    steps = max(run.metrics)
    assert sorted(run.metrics) == list(range(1, steps + 1))
    assert list_violations(run, MODE, STALENESS) == []
    kept = [row for row in run.trajectories if row["step"] <= steps]
    names = {(row["step"], row["index"], row["session"]) for row in kept}
    assert len(kept) == len(names) == 16 * steps, (len(kept), len(names), steps)
    batches = run.list_batches()
    for first in range(1, steps - STEPS_PER_EPOCH + 2, STEPS_PER_EPOCH):
        rows = [row for step in range(first, first + STEPS_PER_EPOCH) for row in batches[step]]
        assert len(rows) == len(set(rows)) == STEPS_PER_EPOCH * equivalence.BATCH
    for metrics in run.metrics.values():
        assert metrics["pipeline/infrastructure/share"] == 0
    assert list_unknown_metrics(run) == [] and run.survivors == []
    print(f"{steps} steps, {len(kept)} trajectories, each once", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=5)
    given = parser.parse_args()
    runs.warm_up_runs()
    lose_nodes(given.folder.resolve() / f"nodes-{given.seed}", given.nodes, given.seed)
    os._exit(0)  # nothing of Ray's is to be waited for


if __name__ == "__main__":
    main()
