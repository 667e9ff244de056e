"""Runs single programs in a sandbox."""

import psutil

from verl_pipeline.sandbox import RunLimits, RunOutcome, Sandbox
from verl_pipeline.sandbox.sandbox_worker import SandboxWorker

QUICK_LIMITS = RunLimits(cpu_s=1.0, memory_bytes=512 << 20, output_bytes=32 << 20)


def run_program(
    sandbox: Sandbox, source: str, stdin: bytes = b"", limits: RunLimits = QUICK_LIMITS
) -> RunOutcome:
    with sandbox.lend_worker() as worker, worker.load_program(source) as program:
        return program.run(stdin, limits)


def list_jail_processes(worker: SandboxWorker) -> list[psutil.Process]:
    return psutil.Process(worker.pid).children(recursive=True)
