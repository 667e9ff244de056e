"""Environment of a CPU run: variables that verl, vLLM, Ray and torch read when they are imported.

Invariant: what the user has set wins (``setdefault`` semantics). A Ray that this process starts
inherits the variables; a Ray that already runs must have been started with them.
"""

import os
import shutil
import sys
from pathlib import Path

from verl_pipeline.temporary_folders import SOCKETS_PREFIX, make_temporary_folder

# vLLM's: the folder of its engines' sockets.
SOCKETS = "VLLM_RPC_BASE_PATH"
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
    # Ray starts workers at 15, at which anything else on the machine starves them: here they do all
    # the work.
    "RAY_worker_niceness": "0",
    # Ray would otherwise blank the accelerator variables of actors that ask for none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # verl 0.9.1 calls logger.info(..., flush=True) on a path that INFO would reach.
    "VERL_LOGGING_LEVEL": "WARNING",
}

# What the fork server imports: the modules that verl and Ray import from other packages, and vLLM's
# server, engine and worker. A module that is missing here costs time only.
WARM_MODULES = """
torch tensordict torchdata.stateful_dataloader peft.utils.save_and_load datasets pandas
transformers.models.auto.modeling_auto transformers.models.auto.processing_auto
transformers.models.auto.tokenization_auto transformers.modeling_utils transformers.trainer_pt_utils
aiohttp cachetools codetiming colorful fastapi google.protobuf.json_format hydra jsonschema msgspec
omegaconf orjson requests setproctitle uvicorn uvloop wrapt zmq.asyncio
vllm.entrypoints.openai.api_server vllm.entrypoints.cli.serve vllm.v1.engine.async_llm
vllm.v1.engine.core vllm.v1.executor.multiproc_executor vllm.v1.worker.cpu_worker
vllm.distributed.utils vllm.lora.lora_model vllm.lora.worker_manager
vllm.model_executor.models.deepseek_v2 vllm.model_executor.models.kimi_vl
vllm.model_executor.models.mixtral vllm.model_executor.models.qwen2_moe
vllm.model_executor.models.qwen3_moe vllm.model_executor.models.qwen3_next
""".split()
# Ray's core reads the variables that tell a worker who it is while it is imported; the others
# import Ray. The three take a third of a second where everything else is there already.
COLD_PACKAGES = ("ray", "transfer_queue", "verl")
# Set to 0, it lets every process import for itself.
FORK_SERVER_SWITCH = "VERL_PIPELINE_FORK_SERVER"
# Options of Hydra with which a command starts no run, or several.
OPTIONS_WITHOUT_RUN = (
    "--cfg",
    "-c",
    "--help",
    "-h",
    "--hydra-help",
    "--info",
    "-i",
    "--multirun",
    "-m",
    "--check",
    "hydra/callbacks",
)


def is_cpu_run() -> bool:
    """Whether this process belongs to a run on CPUs."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def set_environment() -> None:
    """Set what the user has not set; called in the process that starts the run."""
    for name, value in CPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "verl_pipeline"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "torchinductor"))
    if SOCKETS not in os.environ:
        # vLLM never removes its sockets. The path must stay short: a Unix socket's is limited to
        # 107 bytes.
        os.environ[SOCKETS] = str(make_temporary_folder(SOCKETS_PREFIX))


def remove_sockets_folder() -> None:
    """Remove the folder that :func:`set_environment` has made, if it has; call it before another
    program replaces this one, which would inherit a folder that nobody keeps.
    """
    folder = Path(os.environ.get(SOCKETS, ""))
    if folder.name.startswith(SOCKETS_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)
        del os.environ[SOCKETS]


def warm_up_processes(argv: list[str]) -> None:
    """Start importing for the processes of the run that ``argv`` begins, if it begins one here.

    Call it before verl is imported.
    """
    from verl_pipeline.fork_server.client import RAY_HOOK, start_server

    if "RAY_ADDRESS" in os.environ or os.environ.get(FORK_SERVER_SWITCH) == "0":
        return
    if any(word.split("=")[0] in OPTIONS_WITHOUT_RUN for word in argv[1:]):
        return
    if any("ray_init.address" in word for word in argv):  # a Ray whose nodes may be elsewhere
        return
    for name, value in RAY_HOOK.items():
        os.environ.setdefault(name, value)
    # verl gives its workers these, and vLLM reads the level while it is imported.
    environment = {
        name: os.environ.get(name, value)
        for name, value in (CPU_ENVIRONMENT | {"VLLM_LOGGING_LEVEL": "WARN"}).items()
    }
    try:
        start_server(WARM_MODULES, environment, COLD_PACKAGES)
    except OSError as error:
        print(f"no fork server, so this run starts slowly: {error}", file=sys.stderr)
