"""An engine without a model, for the servers of ``installed_servers.py``; imports little, since
each server is a process.
"""

import asyncio
from types import SimpleNamespace

# What the engines call a generation that was cut short.
STOP_REASONS = {"vllm": "aborted", "sglang": "abort", "trtllm": "aborted"}


class StandInEngine:
    """Each request generates one token, and ends at an abort or when told to.

    Args:
        engine: vllm, sglang or trtllm; only vLLM's servers tell what they aborted.
    """

    def __init__(self, engine):
        self.engine = engine
        self.reset()

    def reset(self):
        """As if it had just started."""
        self.version = 0
        self.running = {}
        self.calls = []
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def answer(self, method, arguments):
        """Called by each method of the server."""
        self.calls.append(method)
        handle = getattr(self, f"handle_{method}", None)
        return await handle(**arguments) if handle is not None else None

    async def handle_set_global_steps(self, global_steps):
        self.version = global_steps

    async def handle_generate(self, request_id, **_arguments):
        await self.is_open.wait()
        ended = self.running[request_id] = asyncio.Event()
        await ended.wait()
        return SimpleNamespace(
            token_ids=[7],
            log_probs=[0.0],
            stop_reason="completed" if self.is_open.is_set() else STOP_REASONS[self.engine],
            extra_fields={"global_steps": self.version},
            routed_experts=None,
            num_preempted=None,
        )

    async def handle_abort_all_requests(self, **_arguments):
        self.is_open.clear()
        aborted = list(self.running)
        self.finish()
        if self.engine == "vllm":
            return {"aborted_count": len(aborted), "request_ids": aborted}
        return None

    async def handle_resume_generation(self):
        self.is_open.set()

    handle_open_submission_gate = handle_resume_generation

    def finish(self):
        """End all requests."""
        for ended in self.running.values():
            ended.set()
        self.running.clear()

    def list_running(self):
        return list(self.running)

    def list_calls(self):
        return self.calls


class Balancer:
    """verl's load balancer with one server."""

    def __init__(self, server):
        self.server = server

    def require_acquire_fields(self):
        return []

    def require_release_fields(self):
        return []

    def acquire_server(self, request_id):
        return "0", self.server

    def release_server(self, server_id):
        return None
