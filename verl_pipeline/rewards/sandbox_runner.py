"""Our sandbox as the runner of verl's own code rewards, with the answers of Sandbox Fusion.

verl compares the outputs and gives the score; :mod:`verl_pipeline.rewards.code` is the stricter
reward. :mod:`.rewards.sandbox_runners` registers :func:`run_code` with verl.

Invariants:
* A program gets its input only, in the isolation of :mod:`verl_pipeline.sandbox`; so many run at a
  time in this process as it may use CPUs.
* A failure of the sandbox is an error of the call, never a result of the program.
"""

import functools
import os
import threading
from typing import Any
from urllib.parse import urlsplit

from verl_pipeline.sandbox import RunLimits, RunOutcome, Sandbox, SandboxError

_sandbox_lock = threading.Lock()


def run_code(
    sandbox_fusion_url: str,
    code: str,
    stdin: str | None,
    compile_timeout: int,
    run_timeout: int,
    memory_limit_mb: int | None,
    language: str = "python",
) -> tuple[dict[str, Any] | None, str | None]:
    """Run one program: verl's ``call_sandbox_api`` for URLs of our scheme.

    Args:
        sandbox_fusion_url: its host names the tier; by default ``namespaces``.
        code: the program.
        stdin: its standard input.
        compile_timeout: unused; Python compiles as it starts.
        run_timeout: CPU seconds; a program that idles gets 3 s more.
        memory_limit_mb: of all its processes together, in MiB; None for the sandbox's own limit.
        language: only ``python``.

    Returns:
        The answer as Sandbox Fusion's ``/run_code`` gives it, and None; or None and the error.
    """
    if language != "python":
        return None, f"{sandbox_fusion_url}: language {language!r} is not supported, only python"
    limits = RunLimits(cpu_s=float(run_timeout))
    if memory_limit_mb is not None:
        limits = RunLimits(cpu_s=float(run_timeout), memory_bytes=memory_limit_mb << 20)
    try:
        sandbox = _get_sandbox(urlsplit(sandbox_fusion_url).netloc or "namespaces")
        with (
            sandbox.lend_worker() as worker,
            worker.load_program(code.encode(errors="replace").decode()) as program,
        ):
            outcome = program.run((stdin or "").encode(errors="replace"), limits)
    except (SandboxError, ValueError) as error:
        return None, f"{sandbox_fusion_url}: {error}"
    return _describe_outcome(outcome), None


def _describe_outcome(outcome: RunOutcome) -> dict[str, Any]:
    status = {None: "Finished", "cpu": "TimeLimitExceeded", "wall": "TimeLimitExceeded"}.get(
        outcome.exceeded_limit, "Error"
    )
    succeeded = status == "Finished" and outcome.exit_code == 0
    stderr = outcome.stderr
    if status == "Error":
        stderr += f"\n[the program exceeded its limit of {outcome.exceeded_limit}]\n"
    return {
        "status": "Success" if succeeded else "Failed",
        "message": "",
        "compile_result": None,
        "run_result": {
            "status": status,
            "return_code": None if status == "TimeLimitExceeded" else outcome.exit_code,
            "execution_time": outcome.wall_s,
            "stdout": outcome.stdout.decode(errors="replace"),
            "stderr": stderr,
        },
        "files": {},
    }


def _get_sandbox(tier: str) -> Sandbox:
    with _sandbox_lock:  # verl's threads make their first calls at once
        return _make_sandbox(tier)


@functools.cache
def _make_sandbox(tier: str) -> Sandbox:
    return Sandbox(len(os.sched_getaffinity(0)), tier)
