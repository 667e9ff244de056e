"""Runs untrusted programs: a :class:`Sandbox` lends warm, isolated interpreters.

The process that grades is called the judge, as in programming contests. The sandbox itself knows no
expected outputs.
"""

import difflib
from typing import get_args

from verl_pipeline.sandbox.launch_command import Tier
from verl_pipeline.sandbox.remote_sandbox import REMOTE_TIER, RemoteSandbox
from verl_pipeline.sandbox.run_outcome import AssertRun, RunLimits, RunOutcome, SandboxError
from verl_pipeline.sandbox.worker_pool import Sandbox

TIERS: tuple[str, ...] = (*get_args(Tier), REMOTE_TIER)


def make_sandbox(
    tier: str = "namespaces",
    workers: int | None = None,
    url: str | None = None,
    memory_limit_mb: int | None = None,
) -> Sandbox | RemoteSandbox:
    """Create the sandbox of a tier: ``namespaces``, ``rlimits``, or ``remote`` at ``url``.

    Args:
        memory_limit_mb: see :class:`RemoteSandbox`.

    Raises:
        ValueError: there is no such tier, ``remote`` lacks a ``url`` or has none of a server, or
            another tier has a setting of ``remote``.
    """
    if tier not in TIERS:
        near = difflib.get_close_matches(tier, TIERS, 1)
        hint = f": did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"no isolation tier {tier[:80]!r}{hint} Use one of {', '.join(TIERS)}")
    if tier == REMOTE_TIER and url is None:
        raise ValueError(f"tier {tier!r} needs the url of a SandboxFusion server")
    if tier != REMOTE_TIER and (url, memory_limit_mb) != (None, None):
        raise ValueError(
            f"tier {tier!r} takes no url and no memory_limit_mb: they are for 'remote'"
        )
    if url is None:
        return Sandbox(workers, tier)
    return RemoteSandbox(url, workers or 32, memory_limit_mb=memory_limit_mb)


__all__ = [
    "TIERS",
    "AssertRun",
    "RemoteSandbox",
    "RunLimits",
    "RunOutcome",
    "Sandbox",
    "SandboxError",
    "make_sandbox",
]
