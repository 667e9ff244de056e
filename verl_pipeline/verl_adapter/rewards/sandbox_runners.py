"""Makes our sandbox run the programs of verl's own code rewards, by the scheme of a URL.

    reward.sandbox_fusion.url=verl-pipeline://              # tier namespaces
    reward.sandbox_fusion.url=verl-pipeline://rlimits

verl 0.9.1 has no registry of such runners: its Sandbox Fusion reward posts every test to the URL
with ``call_sandbox_api``. A verl with ``register_sandbox_runner`` (the name that other runners of
this kind look for) gets ours there.

MONKEY-PATCH: without that registry ``call_sandbox_api`` is wrapped, so that URLs of our scheme come
to us. ``contract.toml`` has its signature and fingerprint:
a test fails when either changes.

Invariants:
* URLs of other schemes, and other packages' runners, work as before.
* Registering twice changes nothing.
"""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

SCHEME = "verl-pipeline"
# Takes call_sandbox_api's arguments and returns (response, None) or (None, error).
Runner = Callable[..., tuple[dict[str, Any] | None, str | None]]


def register_runner(sandbox_fusion: ModuleType, run_code: Runner) -> None:
    """Make ``run_code`` verl's runner for :data:`SCHEME`.

    Args:
        sandbox_fusion: verl's module of ``call_sandbox_api``.
    """
    register = getattr(sandbox_fusion, "register_sandbox_runner", None)
    if register is not None:
        register(SCHEME, run_code)
        return
    original = sandbox_fusion.call_sandbox_api
    if getattr(original, "is_verl_pipelines", False):
        return

    @functools.wraps(original)
    def call_sandbox_api(sandbox_fusion_url: str, *args: Any, **kwargs: Any) -> Any:
        is_ours = sandbox_fusion_url.startswith(f"{SCHEME}://")
        return (run_code if is_ours else original)(sandbox_fusion_url, *args, **kwargs)

    call_sandbox_api.is_verl_pipelines = True  # type: ignore[attr-defined]
    sandbox_fusion.call_sandbox_api = call_sandbox_api  # type: ignore[attr-defined]
