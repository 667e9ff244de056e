"""A vLLM engine each of whose steps takes longer, on one replica of a run.

``rollout.engine_kwargs.vllm.worker_extension_cls=tests.helpers.slow_engine.SlowExtension``: vLLM
imports it in the process of each worker. Environment: ``TESTS_SLOW_REPLICA`` (its rank),
``TESTS_STEP_DELAY_S``. The delay is a sleep, so that it takes no core from the other replica.
"""

import os
import time

from vllm.v1.worker.worker_base import WorkerWrapperBase

from verl_pipeline.verl_adapter.weights.weight_reader import WeightReadingExtension


class SlowExtension(WeightReadingExtension):
    """Ours, in a process whose engine may be slow."""


_execute_model = WorkerWrapperBase.execute_model


def execute_model_late(self, scheduler_output):
    if scheduler_output.total_num_scheduled_tokens:
        time.sleep(float(os.environ["TESTS_STEP_DELAY_S"]))
    return _execute_model(self, scheduler_output)


# Of verl's server, whose child this process is.
if os.environ.get("VERL_REPLICA_RANK") == os.environ["TESTS_SLOW_REPLICA"]:
    WorkerWrapperBase.execute_model = execute_model_late  # type: ignore[method-assign]
