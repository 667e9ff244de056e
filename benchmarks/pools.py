"""Starts our trainer with both pools, without training.

For :mod:`benchmarks.rollout` and :mod:`benchmarks.weight_sync`.

Invariant: when the block of :func:`start_pools` ends, even by an error, all its processes have
ended.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verl_pipeline.verl_adapter.trainers.pipelined_trainer import OneOffPipelineTrainer


@contextmanager
def start_pools(overrides: list[str]) -> Iterator["OneOffPipelineTrainer"]:
    """Start Ray, TransferQueue and both pools, and send the weights once.

    Call :func:`verl_pipeline.verl_adapter.cpu.environment.set_environment` before: it must precede
    the import of verl, which happens here.

    Args:
        overrides: added to the overrides of :mod:`verl_pipeline.testing.tiny_run`.
    """
    import ray
    import transfer_queue as tq
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    from verl_pipeline.main import end_run
    from verl_pipeline.testing import tiny_run
    from verl_pipeline.verl_adapter.rollout.rollout_servers import end_engines
    from verl_pipeline.verl_adapter.trainers.pipelined_trainer import OneOffPipelineTrainer

    with tempfile.TemporaryDirectory(prefix="verl-pools-") as directory:
        common = [
            "actor_rollout_ref.rollout.nnodes=1",
            "trainer.total_training_steps=1",
            "transfer_queue.enable=True",
            # What is timed is the sync alone.
            "trainer.v1.one_off_pipeline.weight_check.fingerprint_syncs=0",
            "trainer.v1.one_off_pipeline.weight_check.fingerprint_every=0",
        ]
        with initialize_config_module("verl_pipeline.config", version_base=None):
            config = compose(
                "one_off_pipeline", [*tiny_run.make_overrides(Path(directory)), *common, *overrides]
            )
        OmegaConf.resolve(config)
        ray.init(num_cpus=64, num_gpus=64, include_dashboard=False, log_to_driver=False)
        try:
            tq.init(config.transfer_queue)
            trainer = OneOffPipelineTrainer(config)
            trainer.init()
            try:
                yield trainer
            finally:
                end_engines(trainer.rollout_pool.manager)
        finally:
            end_run([])
