"""Publications of weights and loads of them, with real engines, in one process tree.

``python -m benchmarks.publication_case`` takes one JSON argument and writes one JSON object to the
file that the argument names as ``output``; :mod:`benchmarks.publication` starts it.

Invariant: a publication and a load each start on a quiet machine.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks import spans
from benchmarks.pools import start_pools
from benchmarks.quiet_machine import wait_until_quiet
from benchmarks.weight_sync_case import measure_copies, set_benchmark_environment

if TYPE_CHECKING:
    from verl_pipeline.verl_adapter.trainers.pipelined_trainer import OneOffPipelineTrainer
    from verl_pipeline.verl_adapter.weights.publication import WeightPublisher

# Most versions in host memory: those of staleness 1.
VERSIONS = 3


def measure_case(case: dict) -> dict:
    """Start both pools, then publish and load ``case["repeats"]`` versions, each with a short
    generation after it.

    Returns:
        ``versions``: seconds of each ``publish`` and ``load``, with the spans of both by item;
        ``bytes``: bytes of a version; ``copy_s``: as of
        :func:`benchmarks.weight_sync_case.measure_copies`.
    """
    path = Path(case["output"]).with_suffix(".spans.jsonl")
    path.unlink(missing_ok=True)
    set_benchmark_environment(path)
    rollout = "actor_rollout_ref.rollout"
    overrides = [
        f"actor_rollout_ref.model.path={case['model']}",
        f"{rollout}.n_gpus_per_node=1",
        "trainer.n_gpus_per_node=1",
        f"{rollout}.checkpoint_engine.update_weights_bucket_megabytes={case['bucket_mb']}",
    ]
    with start_pools(overrides) as trainer:
        publisher = _make_publisher(trainer)
        versions = [
            _measure_version(trainer, publisher, version, path)
            for version in range(1, case["repeats"] + 1)
        ]
    size = int(versions[0]["bytes"])
    return {"versions": versions, "bytes": size, "copy_s": measure_copies(size)}


def _make_publisher(trainer: "OneOffPipelineTrainer") -> "WeightPublisher":
    from verl_pipeline.verl_adapter.weights.publication import WeightPublisher

    return WeightPublisher(
        trainer.config,
        trainer.actor_rollout_wg,
        trainer.rollout_pool.manager,
        trainer.settings.deadlines,
        VERSIONS,
        trainer.rollout_pool.check_health,
    )


def _measure_version(
    trainer: "OneOffPipelineTrainer", publisher: "WeightPublisher", version: int, path: Path
) -> dict[str, Any]:
    from verl_pipeline.verl_adapter.weights.weight_loading import load_weights

    if version > VERSIONS:
        publisher.drop(version - VERSIONS)
    wait_until_quiet()
    begin = time.time()
    metrics = publisher.publish(version)
    published = time.time() - begin
    wait_until_quiet()
    start = time.time()
    asyncio.run(load_weights(publisher.replicas[0], version, trainer.settings.deadlines))
    loaded = time.time() - start
    request = trainer.get_llm_client().generate(
        request_id=uuid4().hex,
        prompt_ids=[5, 6, 7],
        sampling_params={"max_tokens": 4, "temperature": 1.0},
    )
    asyncio.run(request)
    items: dict[str, float] = {}
    for span in spans.read_spans(path):
        if span["start"] >= begin:
            items[span["name"]] = items.get(span["name"], 0.0) + span["seconds"]
    size = metrics["pipeline/weight_sync/bytes"]
    return {"publish": published, "load": loaded, "bytes": size, "items": items}


if __name__ == "__main__":
    case = json.loads(sys.argv[1])
    Path(case["output"]).write_text(json.dumps(measure_case(case)))
