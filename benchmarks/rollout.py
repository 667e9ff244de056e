"""Compares the rollout pool's tokens/s with those of the same vLLM offline.

``python -m benchmarks.rollout [--quick] [--output results.json]``, from the repository's folder;
about 20 minutes on two cores, 6 with ``--quick``.

Each case varies one factor of a base case, which does what a training does: one replica, agent
loops, a trivial reward, prefix cache, 4 prompts x 4 samples in flight, equal lengths. The reference
is ``vllm.LLM.generate``, one process per replica, with the same prompts, lengths and engine
settings. A reference process gets all samples of its prompts, while verl's load balancer spreads
the samples of a prompt over the replicas.

Invariants:
* Pool and reference are measured in turns, round by round, while the other idles; ratios pair the
  rounds.
* No two measurements share a prompt, so the prefix cache helps only within a group, as in training.
* No wait without a timeout; all processes have ended when this one ends.
"""

import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks import common
from benchmarks.quiet_machine import wait_until_quiet
from benchmarks.rollout_engines import (
    MEASURE_TIMEOUT_S,
    RolloutCase,
    RolloutWork,
    ServerSettings,
)
from benchmarks.rollout_processes import EngineProcess, start_engines
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.path_options import path_option
from verl_pipeline.progress import make_progress_bars
from verl_pipeline.quickstart.model import prepare_model
from verl_pipeline.verl_adapter.cpu.environment import set_environment

WARM_UP_TOKENS = 8

BASE = RolloutCase("base")
ONE_REPLICA = [
    BASE,
    RolloutCase("no agent loop", agent_loop=False, reward_s=None),
    RolloutCase("no reward", reward_s=None),
    RolloutCase("reward waits 1 s", reward_s=1.0),
    RolloutCase("weight sync each batch", sync=True),
    RolloutCase("long tail", tail=True),
    RolloutCase("4 in flight", in_flight=4),
    RolloutCase("32 in flight", in_flight=32),
]
FULL = [
    (ServerSettings(), ONE_REPLICA),
    (ServerSettings("2 replicas", replicas=2), [BASE, RolloutCase("32 in flight", in_flight=32)]),
    (ServerSettings("no prefix cache", prefix_cache=False), [BASE]),
]
QUICK = [(ServerSettings(), ONE_REPLICA[:-1])]


class RoundRunner:
    """Measures cases with one configuration of servers."""

    def __init__(self, engines: tuple[EngineProcess, list[EngineProcess]], mean_tokens: int):
        self.pool, self.references = engines
        self.mean_tokens = mean_tokens
        self._nonce = 0

    def measure_offline(self, case: RolloutCase, mean_tokens: int) -> float:
        """Return the reference's seconds for the work of ``case``, of its slowest process."""
        work = self._make_work(case, mean_tokens)
        for rank, process in enumerate(self.references):
            process.send_request((work, rank))
        return max(
            process.receive_result(MEASURE_TIMEOUT_S, f"work of '{case.name}'")["seconds"]
            for process in self.references
        )

    def measure_pool(self, case: RolloutCase, mean_tokens: int) -> dict[str, float]:
        """Return the pool's ``seconds`` for ``case``; ``sync_seconds`` of them are weight sync."""
        self.pool.send_request((self._make_work(case, mean_tokens), case))
        return self.pool.receive_result(MEASURE_TIMEOUT_S, f"'{case.name}'")

    def warm_up_engines(self, cases: list[RolloutCase]) -> None:
        """Run every code path once with short responses.

        The first use of a path compiles, packs weights and opens connections.
        """
        warm_ups = (
            replace(case, name="warm-up", in_flight=BASE.in_flight, tail=False) for case in cases
        )
        for case in dict.fromkeys(warm_ups):
            self.measure_pool(case, WARM_UP_TOKENS)
        self.measure_offline(BASE, WARM_UP_TOKENS)

    def run_round(self, cases: list[RolloutCase]) -> Iterator[tuple[RolloutCase, dict[str, float]]]:
        """Measure each case once, beside the reference for its work.

        Two successive cases with the same work share a reference.
        """
        references: dict[tuple[int, bool], float] = {}
        uses: Counter[tuple[int, bool]] = Counter()
        for case in cases:
            work = (case.in_flight, case.tail)
            if uses[work] % 2 == 0:
                references[work] = self.measure_offline(case, self.mean_tokens)
            uses[work] += 1
            result = self.measure_pool(case, self.mean_tokens)
            yield case, {**result, "offline_seconds": references[work]}

    def _make_work(self, case: RolloutCase, mean_tokens: int) -> RolloutWork:
        self._nonce += 1
        return RolloutWork(case.in_flight, case.tail, mean_tokens, self._nonce)


def summarize_case(
    servers: ServerSettings,
    case: RolloutCase,
    repeats: list[dict[str, float]],
    mean_tokens: int,
) -> dict[str, Any]:
    """Return the pool's rates, the reference's tokens/s, and the ratio of pool and reference."""
    tokens = case.in_flight * mean_tokens
    rates = [tokens / repeat["seconds"] for repeat in repeats]
    offline_rates = [tokens / repeat["offline_seconds"] for repeat in repeats]
    return {
        "servers": asdict(servers),
        "case": asdict(case),
        "response_tokens": tokens,
        "tokens_per_s": common.summarize_spread(rates),
        "trajectories_per_s": common.summarize_spread(
            [case.in_flight / repeat["seconds"] for repeat in repeats]
        ),
        "offline_tokens_per_s": common.summarize_spread(offline_rates),
        "pool_over_offline": common.estimate_ratio(rates, offline_rates, paired=True),
        "repeats": repeats,
    }


def make_table_row(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result as a row of the printed table."""
    return {
        "servers": result["servers"]["name"],
        "case": result["case"]["name"],
        "tokens/s": _format_spread(result["tokens_per_s"]),
        "trajectories/s": result["trajectories_per_s"]["median"],
        "offline tokens/s": _format_spread(result["offline_tokens_per_s"]),
        "pool / offline": common.format_ratio(result["pool_over_offline"]),
    }


def _format_spread(values: dict[str, float]) -> str:
    median, low, high = (
        format_decimal(values[name], 0, group=True) for name in ("median", "min", "max")
    )
    return f"{median} ({low} to {high})"


def measure_plan(
    plan: list, repeats: int, mean_tokens: int, model: str, logs: Path, progress: Progress
) -> list[dict]:
    """Measure every case of ``plan`` so many times; return one summary per case."""
    results = []
    task = progress.add_task("", total=sum(1 + repeats * len(cases) for _servers, cases in plan))
    for servers, cases in plan:
        progress.update(task, description=f"{servers.name}: start (about 2 minutes)")
        with start_engines(servers, model, logs) as engines:
            runner = RoundRunner(engines, mean_tokens)
            progress.update(task, description=f"{servers.name}: warm-up")
            runner.warm_up_engines(cases)
            progress.advance(task)
            repeats_by_case: dict[RolloutCase, list[dict[str, float]]] = {
                case: [] for case in cases
            }
            for repeat in range(repeats):
                wait_until_quiet()
                # Every other round runs backwards, so that a drift of the machine does not look
                # like a difference between cases.
                for case, result in runner.run_round(cases if repeat % 2 == 0 else cases[::-1]):
                    progress.update(
                        task,
                        advance=1,
                        description=f"{servers.name}: {case.name}, round {repeat + 1}",
                    )
                    repeats_by_case[case].append(result)
        results += [
            summarize_case(servers, case, repeats_by_case[case], mean_tokens) for case in cases
        ]
    return results


def main(
    quick: Annotated[
        bool, typer.Option(help="One configuration of servers, 3 rounds, short responses.")
    ] = False,
    model: Annotated[
        Path | None, path_option(help="Folder of a model; by default SmolLM2-135M-Instruct.")
    ] = None,
    output: common.ReportOption = Path("outputs/rollout.json"),
) -> None:
    """Measure every case in turn with its reference, print and write the results."""
    set_environment()
    os.environ.update(HF_HUB_OFFLINE="1", PYTHONPATH=str(Path(__file__).parents[1]))
    # End the child processes on SIGTERM as on an error.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    name = str(model or prepare_model())
    plan, repeats, mean_tokens = (QUICK, 3, 16) if quick else (FULL, 4, 28)
    logs = Path(tempfile.mkdtemp(prefix="rollout-logs-"))
    with make_progress_bars(Console()) as progress:
        progress.console.print(f"logs: {logs}")
        results = measure_plan(plan, repeats, mean_tokens, name, logs, progress)
    # After an error the logs stay, since the error names them.
    shutil.rmtree(logs)
    rows = [make_table_row(result) for result in results]
    common.print_table(rows, list(rows[0]))
    arguments = {"quick": quick, "model": name, "rounds": repeats, "mean_tokens": mean_tokens}
    common.write_report(output, "rollout", arguments, results)
    print(f"results: {output}")


if __name__ == "__main__":
    typer.run(main)
