"""A vLLM engine each of whose steps takes :data:`STEP_DELAY_S` longer, on replica 1 only.

``rollout.engine_kwargs.vllm.worker_extension_cls=tests.helpers.slow_engine.SlowExtension``: vLLM
imports it in the process of each worker. The delay is a sleep, so that it takes no core from the
other replica.
"""

import os
import time

from vllm.v1.worker.worker_base import WorkerWrapperBase

from verl_pipeline.verl_adapter.weights.weight_reader import WeightReadingExtension

EXTENSION = f"{__name__}.SlowExtension"
SLOW_REPLICA = 1
STEP_DELAY_S = 0.2


class SlowExtension(WeightReadingExtension):
    """Ours, in a process whose engine is slow."""


_execute_model = WorkerWrapperBase.execute_model


def execute_model_late(self, scheduler_output):
    if scheduler_output.total_num_scheduled_tokens:
        time.sleep(STEP_DELAY_S)
    return _execute_model(self, scheduler_output)


# Of verl's server, whose child this process is.
if os.environ.get("VERL_REPLICA_RANK") == str(SLOW_REPLICA):
    WorkerWrapperBase.execute_model = execute_model_late  # type: ignore[method-assign]
