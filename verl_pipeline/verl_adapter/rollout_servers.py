"""Start and end of the rollout servers' processes.

Invariant: servers that were started are ended in order, also when the start of the trainer fails.
Ray kills a server together with its children, and vLLM's shared memory (hundreds of MB a replica)
would stay behind.
"""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from typing import Any

import ray
from omegaconf import DictConfig
from verl.workers.rollout.llm_server import LLMServerManager

from verl_pipeline.trainer.deadlines import DeadlineExceeded
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY

logger = logging.getLogger(__name__)

# Longest time for vLLM to end its engine processes, in seconds.
CLOSE_S = 20.0


class ServerStart:
    """Rollout servers that start in the background, while the trainer starts its own engines."""

    _manager: Future[LLMServerManager] | None = None

    def start_servers(self, config: DictConfig) -> None:
        """Start the servers; returns at once."""
        executor = ThreadPoolExecutor(max_workers=1)
        self._manager = executor.submit(LLMServerManager.create, config=config)

    def wait_for_manager(self, seconds: float) -> LLMServerManager:
        """The manager of the running servers.

        Raises:
            DeadlineExceeded: they were not ready after ``seconds``.
        """
        assert self._manager is not None, "begin() comes first"
        try:
            return self._manager.result(timeout=seconds)
        except FutureTimeout as error:
            raise DeadlineExceeded(
                f"start of the rollout servers: not ready {seconds:g} s after the trainer was; "
                "look at the logs of the vLLM servers in Ray's session folder, or raise "
                f"{PIPELINE_KEY}.deadlines.start_s for a large model"
            ) from error

    @contextmanager
    def end_servers_on_error(self):
        """On any error inside, end the servers that were begun before the error is raised."""
        try:
            yield
        except BaseException:
            if self._manager is not None:
                try:
                    end_engines(self._manager.result(timeout=CLOSE_S))
                except Exception:
                    # The first error is the cause, and must be the one that is shown.
                    logger.exception("the rollout servers could not be ended in order")
            raise


def end_engines(manager: LLMServerManager) -> None:
    """End the inference engines, so that they free what they share with their workers."""
    servers = [server for replica in manager.get_replicas() for server in replica.servers]
    ended = [server.__ray_call__.remote(_end_engine) for server in servers]
    ray.wait(ended, num_returns=len(ended), timeout=2 * CLOSE_S)


def _end_engine(server: Any) -> None:
    """Runs in the server's process."""
    engine = getattr(server, "engine", None)
    if engine is not None and hasattr(engine, "shutdown"):
        engine.shutdown(timeout=CLOSE_S)
