"""Training runs as child processes, with what they recorded.

Invariant: a run's processes are gone when :func:`train` returns, also after a failure or a
deadline.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from verl_pipeline import shared_memory
from verl_pipeline.testing.seeded import TRAJECTORIES

STOCK = "verl.trainer.main_ppo"
OURS = "verl_pipeline.main"


@dataclass(frozen=True)
class Run:
    """What a run left.

    Attributes:
        returncode: exit code.
        output: standard output and error, interleaved.
        metrics: by step, what verl's file logger wrote.
        trajectories: what :mod:`verl_pipeline.testing.seeded` wrote, in order of completion.
        survivors: processes of the run that were still alive 5 s after its end, as command lines.
        leftovers: files it left in its temporary directory and in shared memory; both are removed.
    """

    returncode: int
    output: str
    metrics: dict[int, dict[str, float]]
    trajectories: list[dict]
    survivors: list[str]
    leftovers: list[str]

    def batches(self) -> dict[int, list[int]]:
        """Data indices of each step's prompts, sorted."""
        found: dict[int, set[int]] = defaultdict(set)
        for record in self.trajectories:
            found[record["step"]].add(record["index"])
        return {step: sorted(indices) for step, indices in sorted(found.items())}


def environment(directory: Path, **extra: str) -> dict[str, str]:
    """Environment of a run that records below ``directory``."""
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(_temporary(directory)),
        "VERL_FILE_LOGGER_PATH": str(directory / "metrics.jsonl"),
        TRAJECTORIES: str(directory / "trajectories.jsonl"),
        **extra,
    }


def _temporary(directory: Path) -> Path:
    """Temporary directory of the run that records in ``directory``; short, since Unix sockets are
    made in it.
    """
    return Path("/tmp") / f"vp{zlib.crc32(str(directory).encode()):08x}"


def start(
    directory: Path, overrides: list[str], *, module: str = OURS, **extra: str
) -> subprocess.Popen:
    """Start a run in a session of its own; its output goes to ``directory/output.log``."""
    directory.mkdir(parents=True, exist_ok=True)
    _temporary(directory).mkdir(exist_ok=True)
    before = sorted(map(str, shared_memory.find_unused_segments()))
    (directory / "shared-memory-before.json").write_text(json.dumps(before))
    with open(directory / "output.log", "w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, *overrides, "trainer.logger=[console,file]"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=environment(directory, **extra),
            start_new_session=True,
        )


def train(
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
        directory: working directory; output, metrics and trajectories are written there.
        overrides: Hydra overrides.
        timeout_s: after this many seconds the run is killed.
        watch: called about every second with all processes of the run so far.
        extra: environment variables to add.
    """
    process = start(directory, overrides, module=module, **extra)
    seen: dict[int, psutil.Process] = {}
    deadline = time.monotonic() + timeout_s
    try:
        while process.poll() is None and time.monotonic() < deadline:
            seen.update({child.pid: child for child in _descendants(process.pid)})
            watch(seen.values())
            time.sleep(1.0)
    except (
        BaseException
    ):  # Ctrl-C and a test's timeout too: the run has a session of its own and would go on
        collect(directory, process, list(seen.values()))
        raise
    return collect(directory, process, list(seen.values()))


def collect(directory: Path, process: subprocess.Popen, descendants: list[psutil.Process]) -> Run:
    """End what is left of a run and read what it recorded."""
    if process.poll() is None:
        process.kill()
    returncode = process.wait()
    _gone, alive = psutil.wait_procs(descendants, timeout=5.0)
    survivors = [" ".join(_command_line(child)) for child in alive]
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    temporary = _temporary(directory)
    before = set(json.loads((directory / "shared-memory-before.json").read_text()))
    segments = {str(path) for path in shared_memory.find_unused_segments()} - before
    # Ray keeps its session folder, with its logs; verl an empty lock file for each checkpoint
    # folder; torch's compiler its cache for all runs of a user.
    names = {path.name for path in temporary.iterdir()} - {"ray"}
    files = {
        str(temporary / name)
        for name in names
        if not re.fullmatch(r"ckpt_\w+\.lock|torchinductor_\w+", name)
    }
    leftovers = sorted(files | segments)
    shutil.rmtree(temporary)
    for segment in segments:
        Path(segment).unlink(missing_ok=True)
    metrics = {record["step"]: record["data"] for record in _lines(directory / "metrics.jsonl")}
    trajectories = _lines(directory / "trajectories.jsonl")
    output = (directory / "output.log").read_text()
    return Run(returncode, output, metrics, trajectories, survivors, leftovers)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return [f"pid {process.pid}"]


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
