"""One case of :mod:`benchmarks.weight_sync`: both pools with real engines, several weight syncs,
nothing else.

``python -m benchmarks.weight_sync_case`` with one JSON argument; writes one JSON object to its
``output``.

Invariant: a sync is measured on a quiet machine: Ray's own start-up has ended, and so has the
generation before it.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from uuid import uuid4

from benchmarks import spans
from benchmarks.pools import pools
from verl_pipeline.verl_adapter.cpu.environment import set_environment

ROOT = Path(__file__).parents[1]
QUIET_PERCENT, QUIET_S, LONGEST_S = 25.0, 3, 90


def environment(path: Path) -> None:
    """Before verl is imported: CPU platform, and spans from every process."""
    set_environment()
    os.environ |= {
        spans.PATH: str(path),
        "VERL_USE_EXTERNAL_MODULES": "benchmarks.spans",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
    }


def measure(case: dict) -> dict:
    """Build the trainer, sync ``case["repeats"]`` times with a short generation after each.

    Returns:
        ``syncs``: for each the seconds in all and by item (summed over processes); ``bytes`` on the
        wire; ``copy_s``: seconds of each of several plain copies of as many bytes, memory touched
        before.
    """
    path = Path(case["output"]).with_suffix(".spans.jsonl")
    path.unlink(missing_ok=True)
    environment(path)
    rollout = "actor_rollout_ref.rollout"
    overrides = [
        f"actor_rollout_ref.model.path={case['model']}",
        f"{rollout}.n_gpus_per_node={case['replicas']}",
        f"trainer.n_gpus_per_node={case['ranks']}",
        f"{rollout}.checkpoint_engine.update_weights_bucket_megabytes={case['bucket_mb']}",
    ]
    with pools(overrides) as trainer:
        syncs = [_sync(trainer, version, path) for version in range(1, case["repeats"] + 1)]
    size = int(syncs[0]["bytes"])
    return {"syncs": syncs, "bytes": size, "copy_s": _copy(size)}


def _sync(trainer, version: int, path: Path) -> dict[str, float]:
    _wait_until_quiet()
    start = time.time()
    metrics = trainer.rollout_pool.send_weights(version, given_up=0)
    total = time.time() - start
    sampling = {"max_tokens": 4, "temperature": 1.0}
    request = trainer.get_llm_client().generate(
        request_id=uuid4().hex, prompt_ids=[5, 6, 7], sampling_params=sampling
    )
    asyncio.run(request)
    items: dict[str, float] = {}
    for span in spans.read(path):
        if span["start"] >= start:
            items[span["name"]] = items.get(span["name"], 0.0) + span["seconds"]
    return {**items, "total": total, "bytes": metrics["pipeline/weight_sync/bytes"]}


def _wait_until_quiet() -> None:
    import psutil

    quiet, deadline = 0, time.monotonic() + LONGEST_S
    while quiet < QUIET_S:
        quiet = quiet + 1 if psutil.cpu_percent(1.0) < QUIET_PERCENT else 0
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"the machine is not quiet: over {QUIET_PERCENT:g} % busy for {LONGEST_S} s"
            )


def _copy(size: int) -> list[float]:
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
    Path(case["output"]).write_text(json.dumps(measure(case)))
