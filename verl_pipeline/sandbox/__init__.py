"""Runs programs nobody trusts: a :class:`Sandbox` lends warm, isolated interpreters; it knows no
expected outputs.
"""

from verl_pipeline.sandbox.outcome import Limits, Outcome, SandboxError
from verl_pipeline.sandbox.pool import Sandbox
from verl_pipeline.sandbox.remote import TIER, RemoteSandbox


def sandbox_of(
    tier: str = "namespaces", workers: int | None = None, url: str | None = None
) -> Sandbox | RemoteSandbox:
    """The sandbox of a tier by name: ``namespaces``, ``rlimits``, or ``remote`` at ``url``.

    Raises:
        ValueError: no such tier, ``remote`` without a ``url``, or another tier with one.
    """
    if (tier == TIER) != (url is not None):
        raise ValueError(
            f"tier {tier!r} "
            f"{'needs the url of a SandboxFusion server' if tier == TIER else 'takes no url'}"
        )
    return RemoteSandbox(url, workers or 32) if url else Sandbox(workers, tier)


__all__ = ["Limits", "Outcome", "RemoteSandbox", "Sandbox", "SandboxError", "sandbox_of"]
