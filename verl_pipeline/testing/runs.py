"""Training runs as child processes, with what they recorded.

A run starts as a fork if this process has a fork server (:mod:`verl_pipeline.fork_server`): then it
has everything imported, and so have its own processes.

Invariants:
* A run's processes are gone when :func:`run_training` returns, also after a failure or a deadline.
* What Ray logged of a run that failed lies in its folder.
"""

import contextlib
import json
import os
import re
import shutil
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from verl_pipeline import shared_memory
from verl_pipeline.fork_server.client import (
    StartedProcess,
    find_server,
    start_process,
    start_server,
)
from verl_pipeline.processes import wait_until_ended
from verl_pipeline.verl_adapter.cpu.environment import (
    COLD_PACKAGES,
    CPU_ENVIRONMENT,
    WARM_MODULES,
)

# Names the folder that :mod:`verl_pipeline.testing.recorded_rollout` writes its trajectories to.
TRAJECTORIES = "VERL_PIPELINE_TRAJECTORIES"
METRICS, OUTPUT, RAY_LOGS = "metrics.jsonl", "output.log", "ray-logs"
STOCK = "verl.trainer.main_ppo"
OURS = "verl_pipeline.main"
# verl's entry loads our plugin after Ray; a fork has to fork its own server before that.
START_STOCK = """
import runpy, sys
import verl_pipeline.plugin
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
# What a run and the server that forks it must agree on.
RUN_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARN"}


@dataclass(frozen=True)
class Run:
    """What a run left.

    Attributes:
        returncode: exit code.
        output: standard output and error, interleaved.
        metrics: by step, what verl's file logger wrote.
        trajectories: what :mod:`verl_pipeline.testing.recorded_rollout` wrote; those of one agent
            loop worker in order of completion.
        survivors: processes of the run that were still alive 5 s after its end, as command lines.
        leftovers: files it left in its temporary directory and in shared memory; both are removed.
    """

    returncode: int
    output: str
    metrics: dict[int, dict[str, float]]
    trajectories: list[dict]
    survivors: list[str]
    leftovers: list[str]

    def list_batches(self) -> dict[int, list[int]]:
        """Data indices of each step's prompts, sorted."""
        found: dict[int, set[int]] = defaultdict(set)
        for record in self.trajectories:
            found[record["step"]].add(record["index"])
        return {step: sorted(indices) for step, indices in sorted(found.items())}


def make_environment(directory: Path, **extra: str) -> dict[str, str]:
    """Environment of a run that records below ``directory``."""
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(name_temporary_folder(directory)),
        **name_records(directory),
        **extra,
    }


def name_records(directory: Path) -> dict[str, str]:
    """The variables that tell a run's processes where to record."""
    return {
        "VERL_FILE_LOGGER_PATH": str(directory / METRICS),
        TRAJECTORIES: str(directory / "trajectories"),
    }


def name_temporary_folder(directory: Path) -> Path:
    """Temporary folder of the run in ``directory``; short, since Unix sockets are made in it."""
    return Path("/tmp") / f"vp{zlib.crc32(str(directory).encode()):08x}"


def warm_up_runs() -> None:
    """Start a fork server for the runs of this process."""
    start_server(WARM_MODULES, CPU_ENVIRONMENT | RUN_ENVIRONMENT, COLD_PACKAGES)


def start_run(
    directory: Path,
    overrides: list[str],
    *,
    module: str = OURS,
    folder: Path | None = None,
    **extra: str,
) -> StartedProcess:
    """Start a run in its own session; its output goes to ``directory/output.log``.

    Args:
        directory: the run records there.
        folder: its working directory; by default ``directory``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    name_temporary_folder(directory).mkdir(exist_ok=True)
    # Mapped ones too: those of a run that is being killed are not this run's.
    before = sorted(map(str, shared_memory.list_segments()))
    (directory / "shared-memory-before.json").write_text(json.dumps(before))
    start = ["-c", START_STOCK, module] if module == STOCK and find_server() else ["-m", module]
    arguments = [*start, *overrides, "trainer.logger=[console,file]"]
    environment = make_environment(directory, **extra)
    with open(directory / OUTPUT, "w") as log:
        return start_process(
            arguments, environment=environment, folder=folder or directory, output=log.fileno()
        )


def run_training(
    directory: Path,
    overrides: list[str],
    *,
    module: str = OURS,
    timeout_s: float = 900.0,
    watch: Callable[[Iterable[psutil.Process]], None] = lambda _processes: None,
    **extra: str,
) -> Run:
    """Run ``python -m module overrides`` to its end.

    Args:
        directory: output, metrics and trajectories are written there.
        overrides: Hydra overrides.
        timeout_s: after this many seconds the run is killed.
        watch: called about twice a second with all processes of the run so far.
        extra: environment variables to add.
    """
    process = start_run(directory, overrides, module=module, folder=directory, **extra)
    seen: dict[int, psutil.Process] = {}
    deadline = time.monotonic() + timeout_s
    try:
        while process.poll() is None and time.monotonic() < deadline:
            seen.update({child.pid: child for child in list_descendants(process.pid)})
            watch(seen.values())
            time.sleep(0.5)
    except BaseException:
        # Ctrl-C and a test's timeout too: the run has its own session and would go on.
        collect_run(directory, process, list(seen.values()))
        raise
    return collect_run(directory, process, list(seen.values()))


def collect_run(directory: Path, process: StartedProcess, descendants: list[psutil.Process]) -> Run:
    """End what is left of a run and read what it recorded."""
    if process.poll() is None:
        process.kill()
    returncode = process.wait()
    alive = wait_until_ended(descendants, 5.0)
    survivors = [" ".join(_read_command_line(child)) for child in alive]
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    temporary = name_temporary_folder(directory)
    before = set(json.loads((directory / "shared-memory-before.json").read_text()))
    segments = {str(path) for path in shared_memory.find_unused_segments()} - before
    # Ray keeps its session folder, with its logs; verl an empty lock file for each checkpoint
    # folder; torch's compiler its cache for all runs of a user.
    names = {path.name for path in temporary.iterdir()} - {"ray"}
    temporary_files = {
        str(temporary / name)
        for name in names
        if not re.fullmatch(r"ckpt_\w+\.lock|torchinductor_\w+", name)
    }
    leftovers = sorted(temporary_files | segments)
    if returncode != 0:
        _keep_ray_logs(temporary, directory / RAY_LOGS)
    shutil.rmtree(temporary)
    for segment in segments:
        Path(segment).unlink(missing_ok=True)
    files = sorted(Path(name_records(directory)[TRAJECTORIES]).glob("*.jsonl"))
    trajectories = [record for file in files for record in _read_json_lines(file)]
    output = (directory / OUTPUT).read_text(errors="replace")
    return Run(returncode, output, read_metrics(directory), trajectories, survivors, leftovers)


def read_metrics(directory: Path) -> dict[int, dict[str, float]]:
    """By step, what the run in ``directory`` has logged so far."""
    return {record["step"]: record["data"] for record in _read_json_lines(directory / METRICS)}


def _keep_ray_logs(temporary: Path, kept: Path) -> None:
    for logs in temporary.glob("ray/session_*_*/logs"):
        # Ray's processes have just been killed: a file of theirs may go while it is copied.
        with contextlib.suppress(shutil.Error, OSError):
            shutil.copytree(logs, kept, symlinks=True, dirs_exist_ok=True)


def list_descendants(pid: int) -> list[psutil.Process]:
    """All processes below one."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _read_command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return [f"pid {process.pid}"]


def _read_json_lines(path: Path) -> list[dict]:
    """The lines that are complete."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines if line]
