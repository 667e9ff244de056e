"""Reward functions that hang in verl's own reward workers, on Ray; one agent loop worker asks.

The workers take a while to start, so all this is slow; tests/unit has verl's managers without Ray.
"""

import asyncio
import math

import pytest
import ray
from hydra import compose, initialize_config_module
from verl.experimental.agent_loop import AgentLoopOutput
from verl.experimental.reward_loop import RewardLoopManager

from tests.helpers.patience import scale_deadline, wait_until
from verl_pipeline.testing import tiny_run
from verl_pipeline.trainer.pipeline_config import Deadlines
from verl_pipeline.verl_adapter.rewards import reward_workers
from verl_pipeline.verl_adapter.rewards.reward_workers import WORN_OUT
from verl_pipeline.verl_adapter.rollout.agent_loop import PipelineAgentLoopWorker
from verl_pipeline.verl_adapter.rollout.awaited_workers import AwaitedWorkers
from verl_pipeline.verl_adapter.rollout.rollout_pool import WorkerDead

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

# Of 30 rewards, verl's threads on two CPUs are six.
ROWS, HANGING = 30, set(range(0, 30, 3))


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@ray.remote(num_cpus=0)
class AgentLoops:
    """Stands for the agent loop workers of a pool: keeps what it is told."""

    def __init__(self):
        self.handles = None

    def use_reward_workers(self, handles):
        self.handles = handles

    def list_handles(self):
        return self.handles


class Trainer:
    """What the watchdog needs of one."""

    teacher_model_manager = None

    def __init__(self, directory, manager):
        overrides = [
            *tiny_run.make_overrides(directory),
            "reward.custom_reward_function.path=pkg://tests.helpers.hanging_reward",
            "reward.num_workers=1",
            f"reward.reward_manager.name={manager}",
        ]
        with initialize_config_module("verl_pipeline.config", version_base=None):
            self.config = compose("one_off_pipeline", overrides=overrides)
        self.reward_loop_manager = RewardLoopManager(self.config)
        self.loops = AgentLoops.remote()
        self.agent_loop_manager = type("Manager", (), {"agent_loop_workers": [self.loops]})
        self.reward_s = scale_deadline(2)
        deadlines = Deadlines(reward_s=self.reward_s, start_s=scale_deadline(120))
        self.awaited = AwaitedWorkers(self, deadlines)
        self.awaited.bound_reward_calls()

    def grade(self, hanging, handles=None):
        """Rewards (NaN for none) and reasons of ROWS rows, asked for at once by an agent loop."""
        worker = object.__new__(PipelineAgentLoopWorker)
        worker.processor, worker._get_mm_processor_kwargs = None, lambda _audios: None
        worker.reward_loop_worker_handles = handles or self.reward_loop_manager.reward_loop_workers
        worker._watch_stalls(trajectory_s=3600, reward_s=self.reward_s)

        async def grade_row(index):
            output = AgentLoopOutput(
                prompt_ids=[1, 2], response_ids=[3, 4], response_mask=[1, 1], metrics={}
            )
            row = {
                "uid": f"b1p{index}",
                "session_id": 0,
                "data_source": "tiny",
                "reward_model": {"ground_truth": "a"},
                "extra_info": {"index": index, "hangs": index in hanging},
            }
            await worker._compute_score([output], row)
            return output.reward_score, output.extra_fields["reward_extra_info"]

        async def grade_rows():
            return await asyncio.gather(*[grade_row(index) for index in range(ROWS)])

        return asyncio.run(grade_rows())

    def check_graded(self, hanging, handles=None):
        for index, (reward, report) in enumerate(self.grade(hanging, handles)):
            if index in hanging:
                assert math.isnan(reward) and report["verdict"] == "infrastructure"
                assert "hanging_reward.compute_score has not returned" in report["reason"]
                assert "deadlines.reward_s=" in report["reason"]
            else:
                assert reward == index, report


def test_a_worker_grades_on_while_ten_of_thirty_rewards_hang_and_is_replaced_in_time(tmp_path):
    trainer = Trainer(tmp_path, "naive")
    (first,) = trainer.reward_loop_manager.reward_loop_workers
    trainer.check_graded(HANGING)
    trainer.check_graded(set())
    for _ in range(20):  # ten hanging calls are no reason
        trainer.awaited.check()
    trainer.check_graded(HANGING)
    assert WORN_OUT <= 2 * len(HANGING)

    def is_replaced():
        trainer.awaited.check()
        return trainer.reward_loop_manager.reward_loop_workers != [first]

    wait_until(is_replaced, 120, "the successor of the worn out worker")
    told = ray.get(trainer.loops.list_handles.remote())
    assert told == trainer.reward_loop_manager.reward_loop_workers
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(first.__ray_ready__.remote(), timeout=scale_deadline(30))
    for _ in range(20):  # the end of the first is no death
        trainer.awaited.check()
    trainer.check_graded(HANGING, told)


def test_a_worker_that_dies_is_replaced_and_one_whose_successors_die_ends_the_wait(
    tmp_path, monkeypatch
):
    trainer = Trainer(tmp_path, "naive")
    workers = trainer.reward_loop_manager.reward_loop_workers

    def is_replaced(first):
        trainer.awaited.check()
        return workers != first

    first = list(workers)
    trainer.awaited.check()
    ray.kill(first[0])
    wait_until(lambda: is_replaced(first), 120, "the successor of the dead worker")
    told = ray.get(trainer.loops.list_handles.remote())
    assert told == workers
    trainer.check_graded(set(), told)
    # What kills its workers one after the other ends the wait by name.
    monkeypatch.setattr(reward_workers, "MOST_DEATHS", 1)
    ray.kill(told[0])
    with pytest.raises(WorkerDead, match="reward worker died"):
        wait_until(trainer.awaited.check, 60, "the death of the worker to be seen")


def test_verls_manager_with_processes_replaces_those_that_hang(tmp_path):
    """verl deals calls out in turn: one process that hangs would keep every later one."""
    trainer = Trainer(tmp_path, "remote")
    trainer.check_graded({0, 11, 29})
    trainer.check_graded(set())
    trainer.awaited.check()
