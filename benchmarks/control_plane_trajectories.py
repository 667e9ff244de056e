"""The trajectories of :mod:`benchmarks.control_plane_case`, and the processes that write them.

Invariants:
* The same seed gives the same trajectories in every checkout.
* Agent loops and ranks store what those of the measured checkout do. There is no model; what a
  checkout lets its ranks compute of their log-probs is computed, and timed by rank.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from tensordict import NonTensorStack, TensorDict

RANKS = 8
SESSIONS = 16
# Rows that one put of an agent loop worker or a rank carries here.
PUT_ROWS = 64


def import_adapter(name: str) -> Any:
    """The module ``verl_adapter.<room>.<name>`` of the checkout that is measured.

    Raises:
        ModuleNotFoundError: it has none, nor has it one without the room, as older checkouts do.
    """
    package = "verl_pipeline.verl_adapter"
    try:
        return import_module(f"{package}.{name}")
    except ModuleNotFoundError:
        return import_module(f"{package}.{name.rpartition('.')[2]}")


@dataclass
class Trajectories:
    """One batch of n synthetic trajectories.

    Attributes:
        prompt_lengths, response_lengths: int64, shape (n,), in tokens.
        rewards: float32, shape (n,), 0 or 1.
        seed: of the tokens, made when they are stored.
    """

    prompt_lengths: torch.Tensor
    response_lengths: torch.Tensor
    rewards: torch.Tensor
    seed: int


def draw_trajectories(count: int, mean: int, longest: int, seed: int) -> Trajectories:
    """Response lengths are lognormal (sigma 0.7) with mean ``mean``, cut at ``longest``, which at
    least one response reaches.
    """
    generator = np.random.default_rng(seed)
    lengths = generator.lognormal(np.log(mean) - 0.7**2 / 2, 0.7, count)
    lengths = np.clip(lengths, 1, longest).astype(np.int64)
    lengths[int(generator.integers(count))] = longest
    prompts = generator.integers(max(longest // 128, 1), max(longest // 32, 2), count)
    rewards = (generator.random(count) < 0.4).astype(np.float32)
    return Trajectories(
        torch.from_numpy(prompts), torch.from_numpy(lengths), torch.from_numpy(rewards), seed
    )


def make_nested(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Jagged tensor of rows of ``lengths`` (int64, (n,)) over ``values`` (shape (sum,))."""
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return torch.nested.nested_tensor_from_jagged(values, offsets)


class RankStub:
    """Stands for the trainer's ranks, one after the other in this process: their share of a batch,
    without the model.

    Attributes:
        rows: by key, what the agent loops stored: prompt length, response length, log-probs.
        seconds: by rank, what our worker adds to verl's in this step.
    """

    _dispatch_info = {"actor": list(range(RANKS))}  # noqa: RUF012  (verl's name and type)

    def __init__(self, elsewhere: Callable[[], AbstractContextManager[None]]):
        # Takes what happens inside out of the driver's time.
        self.elsewhere = elsewhere
        self.rows: dict[str, tuple[int, int, torch.Tensor]] = {}
        self.seconds = [0.0] * RANKS

    def _split(self, batch) -> list[list[str]]:
        """Keys by rank."""
        size = -(-len(batch.keys) // RANKS)
        return [batch.keys[start : start + size] for start in range(0, len(batch.keys), size)]

    def _make_data(self, keys: list[str]) -> dict[str, torch.Tensor]:
        """What verl hands a worker of these rows, of the fields that ours reads."""
        lengths = torch.tensor([self.rows[key][1] for key in keys])
        rollout = torch.cat([self.rows[key][2] for key in keys])
        return {
            "response_mask": make_nested(torch.ones(len(rollout), dtype=torch.int64), lengths),
            "rollout_log_probs": make_nested(rollout, lengths),
        }

    def compute_log_prob(self, batch):
        """Store what a worker makes of ``log_probs`` and ``entropy`` of prompt and response."""
        with self.elsewhere():
            generator = torch.Generator().manual_seed(7)
            for rank, keys in enumerate(self._split(batch)):
                rows = [self.rows[key] for key in keys]
                lengths = torch.tensor([prompt + response for prompt, response, _ in rows])
                # A token's log-prob stands one position before it.
                values = torch.cat(
                    [
                        torch.cat([torch.zeros(prompt - 1), sampled, torch.zeros(1)])
                        for prompt, _response, sampled in rows
                    ]
                )
                values += 0.02 * torch.randn(values.shape, generator=generator)
                output = TensorDict(
                    {
                        "log_probs": make_nested(values, lengths),
                        "entropy": make_nested(values.abs(), lengths),
                    },
                    len(keys),
                )
                if plan := batch.extra_info.get("row_plan"):
                    from verl_pipeline.verl_adapter.trainers.rank_worker import replace_log_probs

                    data = TensorDict(self._make_data(keys), len(keys))
                    start = time.perf_counter()
                    output = replace_log_probs(data, output, plan)
                    self.seconds[rank] += time.perf_counter() - start
                tq.kv_batch_put(keys=keys, partition_id="train", fields=output)
        return batch

    def prepare_update(self, batch) -> None:
        """What a worker does before verl's update."""
        if "row_advantages" not in batch.fields:
            return
        from verl_pipeline.verl_adapter.jagged.rank_fields import prepare_update

        for rank, keys in enumerate(self._split(batch)):
            data = tq.kv_batch_get(
                keys=keys, partition_id="train", select_fields=["row_advantages"]
            )
            for name, values in self._make_data(keys).items():
                data[name] = values
            start = time.perf_counter()
            prepare_update(data, None)
            self.seconds[rank] += time.perf_counter() - start

    def end_step(self) -> list[float]:
        """Forget the rows of a step; its ``seconds``."""
        seconds, self.seconds = self.seconds, [0.0] * RANKS
        self.rows.clear()
        return seconds


def find_outcome_tags() -> Callable[..., dict[str, Any]] | None:
    """What our agent loop workers add to a tag; None in a checkout from before they did."""
    try:
        return import_adapter("trajectories.outcome_tags").describe_outcome
    except ModuleNotFoundError:
        return None


def put_trajectories(batch: int, drawn: Trajectories, ranks: RankStub) -> None:
    """Store a batch as the agent loop workers do, without the fields that the driver never reads:
    ``input_ids``, ``position_ids`` and ``loss_mask``, 24 bytes a token.
    """
    from verl_pipeline.trainer.trajectory_keys import make_prompt_key

    count = len(drawn.rewards)
    generator = torch.Generator().manual_seed(drawn.seed)
    uids = [make_prompt_key(batch, row // SESSIONS) for row in range(count)]
    keys = [f"{uid}_{row % SESSIONS}_0" for row, uid in enumerate(uids)]
    describe_outcome = find_outcome_tags()
    for start in range(0, count, PUT_ROWS):
        rows = range(start, min(start + PUT_ROWS, count))
        prompts, lengths = (
            drawn.prompt_lengths[rows.start : rows.stop],
            drawn.response_lengths[rows.start : rows.stop],
        )
        total, ends = int(lengths.sum()), lengths.cumsum(0) - 1
        scores = torch.zeros(total)
        scores[ends] = drawn.rewards[rows.start : rows.stop]
        responses = torch.randint(3, 30_000, (total,), generator=generator)
        sampled = -torch.rand(total, generator=generator)
        reports = [
            {
                "verdict": "passed" if drawn.rewards[row] else "failed",
                "grader": "code",
                "tier": "namespaces",
                "figures": '{"seconds": 1.25, "tests": 12}',
                "score": float(drawn.rewards[row]),
            }
            for row in rows
        ]
        extra = [
            {"generated_at": 1e9, "reward_extra_info": report, "min_global_steps": batch - 1}
            for report in reports
        ]
        fields = {
            "prompts": make_nested(torch.ones(int(prompts.sum()), dtype=torch.int64), prompts),
            "responses": make_nested(responses, lengths),
            "response_mask": make_nested(torch.ones(total, dtype=torch.int64), lengths),
            "rollout_log_probs": make_nested(sampled, lengths),
            "rm_scores": make_nested(scores, lengths),
            "num_turns": torch.full((len(rows),), 2),
            "uid": NonTensorStack(*[uids[row] for row in rows]),
            "extra_fields": NonTensorStack(*extra),
        }
        tags = []
        for position, row in enumerate(rows):
            prompt, response = int(prompts[position]), int(lengths[position])
            end = int(ends[position])
            tag = {
                "status": "success",
                "prompt_len": prompt,
                "response_len": response,
                "seq_len": prompt + response,
                "global_steps": batch,
                "min_global_steps": batch - 1,
                "max_global_steps": batch - 1,
            }
            if describe_outcome is not None:
                tag |= describe_outcome(
                    reward=float(drawn.rewards[row]),
                    response=responses[end - response + 1 : end + 1].tolist(),
                    mask=[1] * response,
                    num_turns=2,
                    extra_fields=extra[position],
                )
            tags.append(tag)
            ranks.rows[keys[row]] = (prompt, response, sampled[end - response + 1 : end + 1])
        tq.kv_batch_put(
            keys=[keys[row] for row in rows],
            partition_id="train",
            fields=TensorDict(fields, len(rows)),
            tags=tags,
        )
