"""Seconds from the command to the first sampled token, with and without the fork server.

``python -m benchmarks.start_up [--repeats 5] [--output results.json]``, from the repository's
folder; about two minutes a repeat on two idle cores.

A tiny model is trained by ``one_off_pipeline`` from our entry point and by ``sync`` from verl's.
Each runs with the fork server (:mod:`verl_pipeline.fork_server`) and with
``VERL_PIPELINE_FORK_SERVER=0``, where every process imports for itself. The four take turns,
repeat after repeat.

Invariants:
* A time ends at the first output of vLLM's engine, whatever the trainer does after that.
* Processor seconds of a process are counted until then, those of its launcher included; a run's
  total includes the fork server's imports.
"""

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from benchmarks.common import (
    ReportOption,
    estimate_ratio,
    format_ratio,
    print_table,
    summarize_spread,
    write_report,
)
from benchmarks.first_token import PATH
from benchmarks.quiet_machine import wait_until_quiet
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.testing import runs, tiny_run
from verl_pipeline.verl_adapter.cpu.environment import FORK_SERVER_SWITCH

ROOT = Path(__file__).parents[1]
# A run that has no token by then has failed.
RUN_S = 900.0


@dataclass(frozen=True)
class Entry:
    """A way to start a run: the module that ``python -m`` runs, and what it adds to the command."""

    name: str
    module: str
    overrides: tuple[str, ...]


ENTRIES = (
    Entry("ours", runs.OURS, ("actor_rollout_ref.rollout.nnodes=1",)),
    Entry("verl's sync", runs.STOCK, ("trainer.v1.trainer_mode=sync",)),
)


class FirstTokenWatch:
    """Records the processor time of a run's processes until it has sampled its first token."""

    def __init__(self, file: Path):
        self.file = file
        self.first_token: float | None = None
        self.processor_s: dict[int, tuple[str, float]] = {}

    def record_processes(self, processes: Iterable[psutil.Process]) -> None:
        """Called about every second with all processes of the run."""
        if self.first_token is not None:
            return
        for process in processes:
            try:
                times = process.cpu_times()
                title = " ".join(process.cmdline()) or process.name()
            except psutil.Error:
                continue
            self.processor_s[process.pid] = (name_role(title), times.user + times.system)
        if self.file.exists() and (lines := self.file.read_text().split()):
            self.first_token = float(lines[0])


def name_role(title: str) -> str:
    """A process's role, from its title or command line."""
    for role in ("fork_server.server", "launcher.py", "main_ppo", "verl_pipeline.main"):
        if role in title:
            return role.removesuffix(".py")
    if title.startswith(("ray::", "VLLM::")):
        return title.split(".")[0].split(" ")[0]
    if "ray" in title:
        return "ray's own"
    return "other"


def measure_start(entry: Entry, forks: bool, directory: Path) -> dict[str, Any]:
    """One start: ``seconds`` to the first token, ``processor_s`` in all and by role.

    Raises:
        RuntimeError: the run ended without a token.
    """
    watch = FirstTokenWatch(directory / "first-token")
    overrides = [
        *tiny_run.make_overrides(directory),
        *entry.overrides,
        "trainer.total_training_steps=1",
    ]
    started = time.time()
    run = runs.run_training(
        directory / "run",
        overrides,
        module=entry.module,
        timeout_s=RUN_S,
        watch=watch.record_processes,
        VERL_USE_EXTERNAL_MODULES="benchmarks.first_token",
        PYTHONPATH=str(ROOT) + os.pathsep + os.environ.get("PYTHONPATH", ""),
        **{PATH: str(watch.file), FORK_SERVER_SWITCH: str(int(forks))},
    )
    if watch.first_token is None:
        raise RuntimeError(
            f"{entry.name}: no token was sampled; its log ends\n{run.output[-3000:]}"
        )
    by_role: dict[str, float] = defaultdict(float)
    for role, seconds in watch.processor_s.values():
        by_role[role] += seconds
    return {
        "entry": entry.name,
        "forks": forks,
        "seconds": watch.first_token - started,
        "processor_s": sum(by_role.values()),
        "by_role": dict(sorted(by_role.items(), key=lambda item: -item[1])),
    }


def summarize_starts(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each entry: seconds before and after, and the ratio paired by repeat."""
    rows = []
    for entry in ENTRIES:
        seconds = {
            forks: [
                found["seconds"]
                for found in results
                if found["entry"] == entry.name and found["forks"] == forks
            ]
            for forks in (False, True)
        }
        rows.append(
            {
                "entry": entry.name,
                "before": summarize_spread(seconds[False]),
                "after": summarize_spread(seconds[True]),
                "before / after": estimate_ratio(seconds[False], seconds[True], paired=True),
            }
        )
    return rows


def main(
    repeats: Annotated[int, typer.Option(min=1, help="Starts of each kind.")] = 5,
    output: ReportOption = Path("outputs/start_up.json"),
) -> None:
    """Measure, print, write."""
    results = []
    for repeat in range(repeats):
        for entry in ENTRIES:
            for forks in (False, True):
                wait_until_quiet()
                with tempfile.TemporaryDirectory(prefix="start-up-") as directory:
                    found = measure_start(entry, forks, Path(directory))
                results.append({"repeat": repeat, **found})
                print(
                    f"{entry.name}, fork server {forks}: {format_decimal(found['seconds'])} s",
                    flush=True,
                )
    summary = summarize_starts(results)
    print_table(
        [
            {
                "entry": row["entry"],
                "before, s": row["before"]["median"],
                "after, s": row["after"]["median"],
                "before / after [95 %]": format_ratio(row["before / after"]),
            }
            for row in summary
        ],
        ["entry", "before, s", "after, s", "before / after [95 %]"],
    )
    write_report(output, "start_up", {"repeats": repeats}, {"summary": summary, "starts": results})


if __name__ == "__main__":
    typer.run(main)
