"""A rollout pool in which only the servers and the reward are made up.

verl's agent loop workers and load balancer, our client and TransferQueue are real.
"""

import asyncio

import ray
import torch
from verl.utils import tensordict_utils as tu
from verl.workers.rollout.replica import TokenOutput
from verl.workers.rollout.router import get_router_handle

from verl_pipeline.trainer.trajectory_keys import make_prompt_key
from verl_pipeline.verl_adapter.rollout.agent_loop import (
    PipelineAgentLoopManager,
    PipelineAgentLoopWorker,
)
from verl_pipeline.verl_adapter.rollout.llm_client import TurnBudgetClient
from verl_pipeline.verl_adapter.trajectories.trajectory_store import put_prompts


@ray.remote(num_cpus=0)
class SlowServer:
    """Takes ``slots`` requests at a time; as verl's servers, it says nothing until one has ended.

    Args:
        seconds: how long a request takes.
        hanging: (row, session) of the requests that never end and keep their slots.
    """

    def __init__(self, slots, seconds, hanging):
        self._slots = asyncio.Semaphore(slots)
        self._seconds, self._hanging = seconds, hanging
        self._waits = []

    async def generate(self, *, request_id, prompt_ids, sampling_params, **_arguments):
        loop = asyncio.get_running_loop()
        asked = loop.time()
        async with self._slots:
            self._waits.append(loop.time() - asked)
            await asyncio.sleep(1e9 if sampling_params["who"] in self._hanging else self._seconds)
        return TokenOutput(
            token_ids=[5, 6, 2], stop_reason="completed", extra_fields={"global_steps": 0}
        )

    async def find_longest_wait(self):
        """Seconds that a request has stood in the queue."""
        return max(self._waits)


@ray.remote(num_cpus=0)
class Reward:
    async def compute_score(self, _data):
        return {"reward_score": 1.0, "reward_extra_info": {}}


class NamingWorker(PipelineAgentLoopWorker):
    """Tells the server whom a request belongs to."""

    def choose_sampling_params(self, sampling_params, *, step, row, session):
        return {**sampling_params, "who": (int(row), session)}


class SlowPool(PipelineAgentLoopManager):
    worker_class = NamingWorker


def make_pool(config, servers):
    """A started pool of agent loop workers in front of these servers, by name."""
    balancer = get_router_handle(servers=servers)
    return SlowPool.create(
        config=config,
        llm_client=TurnBudgetClient(config, balancer),
        teacher_client=None,
        reward_loop_worker_handles=[Reward.remote()],
    )


def submit_batch(pool, batch, prompts, n):
    """As the trainer submits a batch; returns nothing, and nothing has been sampled by then."""
    keys = [make_prompt_key(batch, position) for position in range(prompts)]
    rows = {
        "uid": keys,
        "index": list(range(prompts)),
        "raw_prompt": [[{"role": "user", "content": f"row {n}"}] for n in range(prompts)],
        "data_source": ["tiny"] * prompts,
        "reward_model": [{"ground_truth": "a"}] * prompts,
        "extra_info": [{"index": row} for row in range(prompts)],
        "dummy_tensor": torch.zeros(prompts, 1, dtype=torch.uint8),
    }
    put_prompts(keys, batch, [n] * prompts)
    pool.generate_sequences(tu.get_tensordict(rows, {"global_steps": batch}))
