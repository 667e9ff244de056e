"""One case of :mod:`benchmarks.control_plane`: steps of our trainer's driver, without any model.

``python benchmarks/control_plane_case.py '{...}'`` takes one JSON argument and writes one JSON
object to the file that the argument names as ``output``. It imports ``verl_pipeline`` from
``PYTHONPATH``, so that another checkout can be measured by the same script.

Invariants:
* TransferQueue is the real one, with verl's number of storage units. The methods measured are the
  trainer's own, called in the order of verl's ``_step_once`` and ``fit``.
* What other processes do in a run (agent loops, trainer ranks) happens here between the phases and
  is timed apart; what a checkout adds to the ranks' work is reported by rank.
* The trajectories lie beside this file, not in the checkout that is measured.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Ray gives the driver one thread; on a machine with GPUs nobody sets TQ_NUM_THREADS.
os.environ |= {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "VERL_LOGGING_LEVEL": "WARNING"}

import ray
import torch
import transfer_queue as tq
from control_plane_polling import measure_polling  # type: ignore[import-not-found]
from control_plane_trajectories import (  # type: ignore[import-not-found]
    RANKS,
    SESSIONS,
    RankStub,
    draw_trajectories,
    import_adapter,
    put_trajectories,
)
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from tensordict import TensorDict

# Overrides of the modes that the defaults do not name.
PIPELINE = "trainer.v1.one_off_pipeline"
DIALS = {"rolling": [f"{PIPELINE}.weight_sync_mode=rolling", f"{PIPELINE}.staleness=2"]}

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


def make_trainer(case: dict, log: PhaseLog) -> Any:
    """Our trainer without pools: everything that its driver path reads, nothing else."""
    from verl.trainer.ppo.metric_utils import RolloutMoELoadBalanceMetricsAccumulator

    from verl_pipeline.filters.truncation import LengthLimits
    from verl_pipeline.trainer.pipeline_config import load_pipeline_config, make_filters
    from verl_pipeline.trainer.step_metrics import StepClock

    pipelined_trainer = import_adapter("trainers.pipelined_trainer")
    replay_buffer = import_adapter("trajectories.in_order_replay_buffer")
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
        f"trainer.default_local_dir={Path(case['output']).parent / 'run'}",
        *DIALS.get(case["mode"], []),
    ]
    with initialize_config_module("verl_pipeline.config", version_base=None):
        config = compose("one_off_pipeline", overrides)
    OmegaConf.resolve(config)
    trainer: Any = object.__new__(pipelined_trainer.OneOffPipelineTrainer)
    trainer.config = config
    trainer.settings = load_pipeline_config(config)
    import_adapter("settings.derived_settings").derive_settings(config, trainer.settings)
    trainer.filters = make_filters(trainer.settings.filters, "filters")
    trainer.use_critic = trainer.use_reference_policy = trainer.use_teacher_policy = False
    trainer.tokenizer = SimpleNamespace(eos_token_id=2)
    trainer.actor_rollout_wg = RankStub(log.elsewhere)
    trainer.replay_buffer = replay_buffer.InOrderReplayBuffer(3600.0, lambda: None, 3600.0)
    trainer._limits = LengthLimits(case["longest"], case["longest"], 1 << 20, frozenset({2}))
    trainer._rollout_moe_lb_metrics_accumulator = RolloutMoELoadBalanceMetricsAccumulator(
        model_config=config.actor_rollout_ref.model
    )
    trainer._sampling_versions, trainer._submission_times = {}, {}
    trainer.step_clock, trainer.last_step = StepClock(), case["repeats"] + 1
    if (dial_class := find_dial_class()) is not None:
        trainer.dial = dial_class(trainer.settings)
    # Where the data loader stood at each batch, which a checkpoint past the barrier needs.
    trainer._positions = SimpleNamespace(forget=lambda batch: None)
    trainer._get_n_gpus_for_throughput = lambda: RANKS
    # The checks of weights ask replicas, which are none here.
    trainer.rollout_pool = SimpleNamespace(fingerprints=SimpleNamespace(take_metrics=dict))
    trainer.log_prob_check = SimpleNamespace(compare=lambda _step, _keys: {})
    if hasattr(trainer, "_prepare_recording"):  # older checkouts record nothing
        trainer._prepare_recording()
    return trainer


def find_dial_class() -> Any:
    """The dial of a run; None in a checkout from before it could turn."""
    try:
        from verl_pipeline.trainer.run_dial import RunDial
    except ModuleNotFoundError:
        return None
    return RunDial


def run_step(trainer: Any, log: PhaseLog, batch: int, case: dict) -> dict:
    """One step as verl's ``fit`` and ``_step_once`` run it.

    Returns:
        Seconds and bytes of each phase, seconds that each rank works for the driver, what polling
        cost, and the step's metrics.
    """
    from verl_pipeline.trainer.trajectory_keys import make_prompt_key

    put_prompts = import_adapter("trajectories.trajectory_store").put_prompts
    log.seconds, log.cpu_seconds, log.read, log.written = {}, {}, {}, {}
    trainer.global_steps = batch
    trainer._sampling_versions[batch], trainer._submission_times[batch] = batch - 1, 0.9e9
    prompts = [make_prompt_key(batch, p) for p in range(case["trajectories"] // SESSIONS)]
    with log.phase("submit"):
        if hasattr(trainer, "dial"):
            trainer.dial.submit(batch, batch)
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
    with log.phase("ranks_update"):
        trainer.actor_rollout_wg.prepare_update(rows)
    with log.phase("metrics"):
        trainer._compute_metrics(rows, metrics, timing, global_steps=batch, epoch=0)
    with log.phase("clear"):
        tq.kv_clear(keys=rows.keys, partition_id=rows.partition_id)
    rank_seconds = trainer.actor_rollout_wg.end_step()
    return {
        "seconds": dict(log.seconds),
        "cpu_seconds": dict(log.cpu_seconds),
        "driver_s": sum(log.seconds[name] for name in DRIVER_PHASES),
        "rank_s": rank_seconds,
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
