"""Environment of a CPU run: variables that verl, vLLM, Ray and torch read when they are imported.

Invariant: what the user has set wins (``setdefault`` semantics). A Ray that this process starts
inherits the variables; a Ray that already runs must have been started with them.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

CPU_ENVIRONMENT: dict[str, str] = {
    # verl's platform registry; ours registers under this name.
    "VERL_PLATFORM": "cpu",
    # One thread a process: two processes with two threads each on two cores run several times
    # slower.
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # GiB of KV cache per replica; vLLM would take half of the machine's memory.
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # The engine core is started with a clean interpreter: a fork of a process that holds Ray
    # threads can hang.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "TOKENIZERS_PARALLELISM": "false",
    # TransferQueue would set torch to 8 threads around each of its calls.
    "TQ_NUM_THREADS": "1",
    # Ray would otherwise blank the accelerator variables of actors that ask for none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # verl 0.9.1 calls logger.info(..., flush=True) on a path that INFO would reach.
    "VERL_LOGGING_LEVEL": "WARNING",
}


def is_cpu_run() -> bool:
    """Whether this process belongs to a run on CPUs."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def set_environment() -> None:
    """Set what the user has not set; called in the process that starts the run."""
    for name, value in CPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "verl_pipeline"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "torchinductor"))
    if "VLLM_RPC_BASE_PATH" not in os.environ:
        # vLLM never removes its sockets. The path must stay short: a Unix socket's is limited to
        # 107 bytes.
        sockets = tempfile.mkdtemp(prefix="verl-pipeline-")
        os.environ["VLLM_RPC_BASE_PATH"] = sockets
        atexit.register(shutil.rmtree, sockets, ignore_errors=True)
