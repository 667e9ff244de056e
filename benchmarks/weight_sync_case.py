"""One case of :mod:`benchmarks.weight_sync`: several weight syncs between pools of real engines.

``python -m benchmarks.weight_sync_case`` takes one JSON argument and writes one JSON object to the
file that the argument names as ``output``.

Invariant: a sync starts on a quiet machine, after Ray's start-up and the previous generation.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from benchmarks import spans
from benchmarks.pools import start_pools
from benchmarks.quiet_machine import wait_until_quiet
from verl_pipeline.verl_adapter.cpu.environment import set_environment

if TYPE_CHECKING:
    from verl_pipeline.verl_adapter.trainers.pipelined_trainer import OneOffPipelineTrainer

ROOT = Path(__file__).parents[1]


def set_benchmark_environment(path: Path) -> None:
    """Set the CPU platform and record spans to ``path``; call this before importing verl."""
    set_environment()
    os.environ |= {
        spans.SPANS_VARIABLE: str(path),
        "VERL_USE_EXTERNAL_MODULES": "benchmarks.spans",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
    }


def measure_case(case: dict) -> dict:
    """Start both pools and sync ``case["repeats"]`` times, with a short generation after each.

    Returns:
        ``syncs``: seconds of each sync, in total and by item (summed over processes); ``bytes``:
        bytes sent; ``copy_s``: seconds of several plain copies of as many bytes into memory that
        has been touched before.
    """
    path = Path(case["output"]).with_suffix(".spans.jsonl")
    path.unlink(missing_ok=True)
    set_benchmark_environment(path)
    rollout = "actor_rollout_ref.rollout"
    overrides = [
        f"actor_rollout_ref.model.path={case['model']}",
        f"{rollout}.n_gpus_per_node={case['replicas']}",
        f"trainer.n_gpus_per_node={case['ranks']}",
        f"{rollout}.checkpoint_engine.update_weights_bucket_megabytes={case['bucket_mb']}",
    ]
    with start_pools(overrides) as trainer:
        syncs = [_measure_sync(trainer, version, path) for version in range(1, case["repeats"] + 1)]
    size = int(syncs[0]["bytes"])
    return {"syncs": syncs, "bytes": size, "copy_s": measure_copies(size)}


def _measure_sync(trainer: "OneOffPipelineTrainer", version: int, path: Path) -> dict[str, float]:
    wait_until_quiet()
    start = time.time()
    metrics = trainer.rollout_pool.send_weights(version)
    total = time.time() - start
    sampling = {"max_tokens": 4, "temperature": 1.0}
    request = trainer.get_llm_client().generate(
        request_id=uuid4().hex, prompt_ids=[5, 6, 7], sampling_params=sampling
    )
    asyncio.run(request)
    items: dict[str, float] = {}
    for span in spans.read_spans(path):
        if span["start"] >= start:
            items[span["name"]] = items.get(span["name"], 0.0) + span["seconds"]
    return {**items, "total": total, "bytes": metrics["pipeline/weight_sync/bytes"]}


def measure_copies(size: int) -> list[float]:
    """Seconds of several plain copies of ``size`` bytes into memory that was touched before."""
    import torch

    torch.set_num_threads(1)
    source, target = torch.ones(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    case = json.loads(sys.argv[1])
    Path(case["output"]).write_text(json.dumps(measure_case(case)))
