"""One case of :mod:`benchmarks.control_plane`: steps of our trainer's driver, without any model.

``python benchmarks/control_plane_case.py '{...}'`` takes one JSON argument and writes one JSON
object to the file that the argument names as ``output``. It imports ``verl_pipeline`` from
``PYTHONPATH``, so that another checkout can be measured by the same script.

Invariants:
* TransferQueue is the real one, with verl's number of storage units. The methods measured are the
  trainer's own, called in the order of verl's ``_step_once`` and ``fit``.
* What other processes do in a run (agent loops, trainer ranks) happens here between the phases and
  is timed apart.
* The same seed gives the same trajectories in every checkout.
"""

import json
import os
import pickle
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Ray gives the driver one thread; on a machine with GPUs nobody sets TQ_NUM_THREADS.
os.environ |= {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "VERL_LOGGING_LEVEL": "WARNING"}

import numpy as np
import ray
import torch
import transfer_queue as tq
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from tensordict import NonTensorStack, TensorDict

RANKS = 8
SESSIONS = 16
# Rows that one put of an agent loop worker or a rank carries here.
PUT_ROWS = 64
DRIVER_PHASES = (
    "submit",
    "sample",
    "balance",
    "old_log_prob",
    "advantage",
    "metrics",
    "clear",
)


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


@dataclass
class PhaseLog:
    """Seconds (by the clock, and of this process's processors) and bytes of the phases of one
    step.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    current: str = ""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase; what other processes do inside is taken out by :meth:`elsewhere`."""
        self.current = name
        start, started_cpu = time.perf_counter(), time.process_time()
        self.seconds[name] = self.cpu_seconds[name] = 0.0
        yield
        self.seconds[name] += time.perf_counter() - start
        self.cpu_seconds[name] += time.process_time() - started_cpu
        self.current = ""

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Work of another process in the middle of a phase."""
        name = self.current
        start, started_cpu = time.perf_counter(), time.process_time()
        self.current = "ranks"
        yield
        self.current = name
        self.seconds[name] -= time.perf_counter() - start
        self.cpu_seconds[name] -= time.process_time() - started_cpu

    def count(self, table: dict[str, int], data: TensorDict | None) -> None:
        """Add the bytes of the tensors in ``data``."""
        size = 0
        for value in data.values() if data is not None else ():
            if isinstance(value, torch.Tensor):
                flat = value.values() if value.is_nested else value
                size += flat.numel() * flat.element_size()
        table[self.current] = table.get(self.current, 0) + size


def count_transfers(log: PhaseLog) -> None:
    """Let TransferQueue's functions count bytes in ``log``, whoever calls them."""
    put, get = tq.kv_batch_put, tq.kv_batch_get

    def put_counted(keys, partition_id, fields=None, tags=None, **kwargs):
        log.count(log.written, fields)
        return put(keys=keys, partition_id=partition_id, fields=fields, tags=tags, **kwargs)

    def get_counted(keys, partition_id, select_fields=None):
        data = get(keys=keys, partition_id=partition_id, select_fields=select_fields)
        log.count(log.read, data)
        return data

    tq.kv_batch_put, tq.kv_batch_get = put_counted, get_counted


class RankStub:
    """Stands for the trainer's ranks: writes what they write, computes nothing."""

    _dispatch_info = {"actor": list(range(RANKS))}  # noqa: RUF012  (verl's name and type)

    def __init__(self, log: PhaseLog):
        self.log = log
        self.rows: dict[str, tuple[int, int, torch.Tensor]] = {}

    def compute_log_prob(self, batch):
        """Write ``log_probs`` and ``entropy`` of prompt and response, float32."""
        with self.log.elsewhere():
            generator = torch.Generator().manual_seed(7)
            for start in range(0, len(batch.keys), PUT_ROWS):
                keys = batch.keys[start : start + PUT_ROWS]
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
                fields = {
                    "log_probs": make_nested(values, lengths),
                    "entropy": make_nested(values.abs(), lengths),
                }
                tq.kv_batch_put(
                    keys=keys, partition_id="train", fields=TensorDict(fields, len(keys))
                )
        return batch


def find_outcome_tags() -> Callable[..., dict[str, Any]] | None:
    """What our agent loop workers add to a tag; None in a checkout from before they did."""
    try:
        from verl_pipeline.verl_adapter.outcome_tags import describe_outcome
    except ImportError:
        return None
    return describe_outcome


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


def measure_polling(buffer: Any, last: str, seconds: float) -> dict[str, float]:
    """Wait for a batch whose last prompt ends after ``seconds``; what the controller works for it.

    Returns:
        ``poll_s``: median time of one question; ``poll_share``: of the wait; ``poll_delay_s``: from
        the end of the batch to its detection; ``poll_bytes``: of all tags.
    """
    client = tq.get_client()
    polls: list[float] = []
    calls = {"kv_list": tq, "kv_retrieve_meta": client}
    originals = {name: getattr(owner, name) for name, owner in calls.items()}

    def time_call(original):
        def timed(*args, **kwargs):
            start = time.perf_counter()
            answer = original(*args, **kwargs)
            polls.append(time.perf_counter() - start)
            return answer

        return timed

    ended: list[float] = []

    def finish_last() -> None:
        time.sleep(seconds)
        put = tq.get_client()
        meta = put.kv_retrieve_meta(keys=[last], partition_id="train")
        meta.update_custom_meta([{"status": "finished"}])
        put.set_custom_meta(meta)
        ended.append(time.perf_counter())

    size = len(pickle.dumps(originals["kv_list"]("train")))
    for name, owner in calls.items():
        setattr(owner, name, time_call(originals[name]))
    thread = threading.Thread(target=finish_last)
    start = time.perf_counter()
    thread.start()
    buffer.wait_until_sampled()
    detected = time.perf_counter()
    thread.join()
    for name, owner in calls.items():
        setattr(owner, name, originals[name])
    return {
        "poll_s": float(np.median(polls)),
        "poll_share": sum(polls) / (detected - start),
        "poll_delay_s": max(detected - ended[0], 0.0),
        "poll_bytes": float(size),
    }


def make_trainer(case: dict, log: PhaseLog) -> Any:
    """Our trainer without pools: everything that its driver path reads, nothing else."""
    from verl.trainer.ppo.metric_utils import RolloutMoELoadBalanceMetricsAccumulator

    from verl_pipeline.filters.truncation import LengthLimits
    from verl_pipeline.trainer.pipeline_config import load_pipeline_config, make_filters
    from verl_pipeline.trainer.step_metrics import StepClock
    from verl_pipeline.verl_adapter.derived_settings import derive_settings
    from verl_pipeline.verl_adapter.in_order_replay_buffer import InOrderReplayBuffer
    from verl_pipeline.verl_adapter.pipelined_trainer import OneOffPipelineTrainer

    prompts = case["trajectories"] // SESSIONS
    rollout = "actor_rollout_ref.rollout"
    overrides = [
        "actor_rollout_ref.model.path=none",
        "algorithm.adv_estimator=grpo",
        f"data.train_batch_size={prompts}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={prompts}",
        f"{rollout}.name=vllm",
        f"{rollout}.n={SESSIONS}",
        f"{rollout}.nnodes=1",
        f"{rollout}.prompt_length={case['longest']}",
        f"{rollout}.response_length={case['longest']}",
        "trainer.v1.one_off_pipeline.filters=[infrastructure,{name: overlong, mode: deepcoder}]",
    ]
    with initialize_config_module("verl_pipeline.config", version_base=None):
        config = compose("one_off_pipeline", overrides)
    OmegaConf.resolve(config)
    trainer: Any = object.__new__(OneOffPipelineTrainer)
    trainer.config = config
    trainer.settings = load_pipeline_config(config)
    derive_settings(config, trainer.settings)
    trainer.filters = make_filters(trainer.settings.filters, "filters")
    trainer.use_critic = trainer.use_reference_policy = False
    trainer.tokenizer = SimpleNamespace(eos_token_id=2)
    trainer.actor_rollout_wg = RankStub(log)
    trainer.replay_buffer = InOrderReplayBuffer(3600.0, lambda: None, 3600.0)
    trainer._limits = LengthLimits(case["longest"], case["longest"], 1 << 20, frozenset({2}))
    trainer._rollout_moe_lb_metrics_accumulator = RolloutMoELoadBalanceMetricsAccumulator(
        model_config=config.actor_rollout_ref.model
    )
    trainer._sampling_versions, trainer._submission_times = {}, {}
    trainer._clock = StepClock()
    trainer._get_n_gpus_for_throughput = lambda: RANKS
    # The checks of weights ask replicas, which are none here.
    trainer.rollout_pool = SimpleNamespace(fingerprints=SimpleNamespace(take_metrics=dict))
    trainer.log_prob_check = SimpleNamespace(compare=lambda _step, _keys: {})
    return trainer


def run_step(trainer: Any, log: PhaseLog, batch: int, case: dict) -> dict:
    """One step as verl's ``fit`` and ``_step_once`` run it.

    Returns:
        Seconds and bytes of each phase, what polling cost, and the step's metrics.
    """
    from verl_pipeline.trainer.trajectory_keys import make_prompt_key
    from verl_pipeline.verl_adapter.trajectory_store import put_prompts

    log.seconds, log.cpu_seconds, log.read, log.written = {}, {}, {}, {}
    trainer.global_steps = batch
    trainer._sampling_versions[batch], trainer._submission_times[batch] = batch - 1, 0.9e9
    prompts = [make_prompt_key(batch, p) for p in range(case["trajectories"] // SESSIONS)]
    with log.phase("submit"):
        put_prompts(prompts, batch, [SESSIONS] * len(prompts))
    drawn = draw_trajectories(
        case["trajectories"], case["mean"], case["longest"], case["seed"] + batch
    )
    with log.phase("agent_loops"):
        put_trajectories(batch, drawn, trainer.actor_rollout_wg)
        tags = [{"status": "finished"} for _ in prompts]
        tags[-1] = {"status": "running"}
        tq.kv_batch_put(keys=prompts, partition_id="train", tags=tags)
    polling = measure_polling(trainer.replay_buffer, prompts[-1], case["wait_s"])
    metrics: dict[str, Any] = {}
    timing = {"step": 100.0, "gen": 50.0, "adv": 1.0}
    with log.phase("sample"):
        rows, _ = trainer.replay_buffer.sample(batch, "train", len(prompts))
        rows.extra_info["temperature"] = 1.0
    with log.phase("balance"):
        rows = trainer._balance_batch(rows, metrics=metrics)
    with log.phase("old_log_prob"):
        rows = trainer._compute_old_log_prob(rows, metrics=metrics)
    with log.phase("advantage"):
        rows = trainer._compute_advantage(rows, metrics=metrics)
    with log.phase("metrics"):
        trainer._compute_metrics(rows, metrics, timing, global_steps=batch, epoch=0)
    with log.phase("clear"):
        tq.kv_clear(keys=rows.keys, partition_id=rows.partition_id)
    trainer.actor_rollout_wg.rows.clear()
    return {
        "seconds": dict(log.seconds),
        "cpu_seconds": dict(log.cpu_seconds),
        "driver_s": sum(log.seconds[name] for name in DRIVER_PHASES),
        "driver_cpu_s": sum(log.cpu_seconds[name] for name in DRIVER_PHASES),
        "read_bytes": dict(log.read),
        "written_bytes": dict(log.written),
        "tokens": int(drawn.response_lengths.sum()),
        "padded_tokens": case["trajectories"] * int(drawn.response_lengths.max()),
        **polling,
        "metrics": {name: float(value) for name, value in sorted(metrics.items())},
    }


def measure_case(case: dict) -> dict:
    """Run ``case["repeats"]`` steps in this process, on a Ray and a TransferQueue of its own.

    Returns:
        ``steps``: as :func:`run_step` returns them; ``peak_bytes``: the driver's largest resident
        memory.
    """
    ray.init("local", num_cpus=16, include_dashboard=False, log_to_driver=False)
    try:
        log = PhaseLog()
        trainer = make_trainer(case, log)
        tq.init(trainer.config.transfer_queue)
        count_transfers(log)
        steps = [run_step(trainer, log, batch, case) for batch in range(1, case["repeats"] + 1)]
    finally:
        tq.close()
        ray.shutdown()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"steps": steps, "peak_bytes": peak}


if __name__ == "__main__":
    CASE = json.loads(sys.argv[1])
    Path(CASE["output"]).write_text(json.dumps(measure_case(CASE)))
