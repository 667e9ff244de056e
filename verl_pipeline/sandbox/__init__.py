"""Runs untrusted programs: a :class:`Sandbox` lends warm, isolated interpreters.

The process that grades is called the judge, as in programming contests. The sandbox itself knows no
expected outputs.
"""

from verl_pipeline.sandbox.remote_sandbox import REMOTE_TIER, RemoteSandbox
from verl_pipeline.sandbox.run_outcome import AssertRun, RunLimits, RunOutcome, SandboxError
from verl_pipeline.sandbox.worker_pool import Sandbox


def make_sandbox(
    tier: str = "namespaces", workers: int | None = None, url: str | None = None
) -> Sandbox | RemoteSandbox:
    """Create the sandbox of a tier: ``namespaces``, ``rlimits``, or ``remote`` at ``url``.

    Raises:
        ValueError: there is no such tier, ``remote`` lacks a ``url``, or another tier has one.
    """
    if (tier == REMOTE_TIER) != (url is not None):
        need = "needs the url of a SandboxFusion server" if tier == REMOTE_TIER else "takes no url"
        raise ValueError(f"tier {tier!r} {need}")
    return RemoteSandbox(url, workers or 32) if url else Sandbox(workers, tier)


__all__ = [
    "AssertRun",
    "RemoteSandbox",
    "RunLimits",
    "RunOutcome",
    "Sandbox",
    "SandboxError",
    "make_sandbox",
]
