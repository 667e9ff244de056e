"""Clocks of actors are sampled as the run goes, and reward workers that come later record too."""

import json
import time
from types import SimpleNamespace

import pytest
import ray

from tests.helpers.made_up_run import make_header
from tests.helpers.patience import scale_deadline, wait_until
from tests.helpers.simulated_run import MadeUpRun
from verl_pipeline.telemetry.recorder import Recorder, RunTarget
from verl_pipeline.verl_adapter.telemetry import recording_processes
from verl_pipeline.verl_adapter.telemetry.recording_processes import (
    REWARD,
    ProcessClocks,
    flush_processes,
)

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@ray.remote(num_cpus=0)
class RewardLoopWorker:
    """verl's, as far as it finds its reward."""

    def __init__(self):
        async def run_single(data):
            return data

        self.reward_manager = SimpleNamespace(run_single=run_single)

    async def compute_score_disrm(self, data):
        return data

    async def compute_score(self, data):
        return await self.reward_manager.run_single(data)


@ray.remote(num_cpus=0)
class Rank:
    """A trainer's rank, which computes and answers nobody meanwhile."""

    def compute(self, seconds):
        time.sleep(seconds)


class Run:
    def __init__(self, folder):
        target = RunTarget(str(folder), make_header(MadeUpRun()))
        self.folder, self.recorder = folder / "telemetry", Recorder(target, "driver")
        self.processes = {"trainer": [Rank.remote()], REWARD: [RewardLoopWorker.remote()]}
        self.clocks = ProcessClocks(self.recorder, lambda: self.processes)

    def count_samples(self, role):
        for actors in self.processes.values():
            flush_processes(actors)
        lines = [line for path in self.folder.glob(f"run-{role}-*") for line in path.open()]
        return sum("offset_s" in json.loads(line) for line in lines)


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path)
    yield run
    run.clocks.stop()
    run.recorder.close()


def test_clocks_are_sampled_again_and_successors_have_their_lanes(run, monkeypatch):
    run.clocks.sample_first()
    wait_until(lambda: run.count_samples("trainer") == 1, 60, "the first sample")
    run.clocks.sample_again()  # a minute has not passed
    monkeypatch.setattr(recording_processes, "SAMPLE_EVERY_S", 0.0)
    successor = RewardLoopWorker.remote()
    run.processes[REWARD] = [*run.processes[REWARD], successor]
    ray.get(successor.__ray_ready__.remote())

    def is_sampled():
        run.clocks.sample_again()
        return run.count_samples("trainer") >= 2 and run.count_samples(REWARD) >= 3

    wait_until(is_sampled, 60, "the second samples")
    assert ray.get([worker.compute_score.remote(5) for worker in run.processes[REWARD]]) == [5, 5]
    flush_processes(run.processes[REWARD])
    spans = [json.loads(line) for path in run.folder.glob("spans-*") for line in path.open()]
    assert {span["lane"] for span in spans} == {"reward worker 0", "reward worker 1"}


def test_who_computes_is_not_waited_for(run, monkeypatch):
    monkeypatch.setattr(recording_processes, "SAMPLE_EVERY_S", 0.0)
    (rank,) = run.processes["trainer"]
    ray.get(rank.__ray_ready__.remote())
    busy = rank.compute.remote(2 * scale_deadline(recording_processes.ANSWER_S))
    began = time.monotonic()
    run.clocks.sample_again()
    assert time.monotonic() - began < recording_processes.ANSWER_S
    wait_until(lambda: run.count_samples(REWARD) == 1, 60, "who does not compute")
    ray.get(busy)
    assert run.count_samples("trainer") == 0
