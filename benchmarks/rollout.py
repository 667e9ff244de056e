"""What the rollout pool adds to its engine: tokens/s through verl's servers, against the same vLLM
offline.

``python -m benchmarks.rollout [--quick] [--output results.json]``, from the repository's folder;
about 20 minutes on two cores, 6 with ``--quick``.

One factor at a time is varied around a base case: what a training run does (one replica, agent
loops, a trivial reward, prefix cache) with 4 prompts x 4 samples in flight, equal lengths. The
reference is ``vllm.LLM.generate``, a process a replica, with the same prompts, lengths and engine
settings. It gets whole prompts; verl's load balancer spreads the samples of a prompt over the
replicas.

Invariants:
* Pool and reference are measured in turns, round by round, while the other idles; a ratio pairs the
  rounds.
* No two measurements share a prompt, so a prefix cache helps within a group only, as in training.
* No wait without a deadline that names who is awaited; every process has ended when this one does.
"""

import contextlib
import os
import shutil
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks import common
from benchmarks.rollout_engines import MEASURE_S, START_S, Case, Servers, Work, offline, pool
from verl_pipeline.progress import make_progress_bars
from verl_pipeline.quickstart.model import prepare_model
from verl_pipeline.verl_adapter.cpu.environment import set_environment

WARM_UP_TOKENS = 8
# Longest time for a child to end what it started, in seconds.
END_S = 90.0
# Longest time for what it started to follow, before it is killed.
KILL_S = 10.0

BASE = Case("base")
ONE_REPLICA = [
    BASE,
    Case("no agent loop", agent_loop=False, reward_s=None),
    Case("no reward", reward_s=None),
    Case("reward waits 1 s", reward_s=1.0),
    Case("weight sync each batch", sync=True),
    Case("long tail", tail=True),
    Case("4 in flight", in_flight=4),
    Case("32 in flight", in_flight=32),
]
FULL = [
    (Servers(), ONE_REPLICA),
    (Servers("2 replicas", replicas=2), [BASE, Case("32 in flight", in_flight=32)]),
    (Servers("no prefix cache", prefix_cache=False), [BASE]),
]
QUICK = [(Servers(), ONE_REPLICA[:-1])]


class Child:
    """A process that runs ``start(servers, model)`` and answers questions; its output goes to
    ``log``.
    """

    def __init__(self, start: Callable, servers: Servers, model: str, who: str, log: Path):
        context = get_context("spawn")
        self.who, self.log = f"{who} ({servers.name})", log
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, start, servers, model, log))
        self._process.start()
        theirs.close()
        self._started: list[psutil.Process] = []

    def send(self, question: Any) -> None:
        """Ask; the answer is awaited by :meth:`answer`."""
        self._pipe.send(question)

    def answer(self, seconds: float, what: str) -> dict[str, Any]:
        """The answer, after at most ``seconds``; raises with the child's traceback, death or
        silence.
        """
        self._remember()
        try:
            if not self._pipe.poll(seconds):
                raise TimeoutError(
                    f"{self.who}: no answer for {seconds:g} s to: {what}; its output: {self.log}"
                )
            answer = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise RuntimeError(
                f"{self.who} ended during: {what}; its output: {self.log}"
            ) from error
        if "error" in answer:
            raise RuntimeError(
                f"{self.who} failed at: {what}; its output: {self.log}\n{answer['error']}"
            )
        return answer

    def ask_to_end(self) -> None:
        """It ends once it has answered what it was asked."""
        self._remember()
        self._pipe.close()

    def end(self) -> None:
        """Wait for its end; what is left of it and of what it started is killed, each by its
        process id.
        """
        self._remember()
        self._process.join(END_S)
        _gone, alive = psutil.wait_procs(self._started, timeout=KILL_S)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.kill()
        self._process.join(KILL_S)

    def _remember(self) -> None:
        """What it started: once it has died, nobody could tell any more."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._started = [
                *{*self._started, *psutil.Process(self._process.pid).children(recursive=True)}
            ]


def _serve(pipe, start: Callable, servers: Servers, model: str, log: Path) -> None:
    """Runs in the child: its parent's end, or the pipe's, ends it in order."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        with start(servers, model) as answer:
            pipe.send({})
            while True:
                try:
                    question = pipe.recv()
                except EOFError:
                    return
                pipe.send(answer(question))
    except Exception:
        pipe.send({"error": traceback.format_exc()})
        raise


@contextlib.contextmanager
def children(servers: Servers, model: str, logs: Path) -> Iterator[tuple[Child, list[Child]]]:
    """The pool and its reference, both started."""
    name = servers.name.replace(" ", "-")
    started: list[Child] = []
    try:
        started.append(Child(pool, servers, model, "rollout pool", logs / f"{name}-pool.log"))
        for rank in range(servers.replicas):
            log = logs / f"{name}-offline-{rank}.log"
            started.append(Child(offline, servers, model, f"vLLM offline {rank}", log))
        for child in started:
            child.answer(START_S, "start")
        yield started[0], started[1:]
    finally:
        for child in started:
            child.ask_to_end()
        for child in started:
            child.end()


class Rounds:
    """Measures cases on one configuration of servers."""

    def __init__(self, members: tuple[Child, list[Child]], mean_tokens: int):
        self.pool, self.reference = members
        self.mean_tokens = mean_tokens
        self._nonce = 0

    def _new(self, case: Case, mean_tokens: int) -> Work:
        self._nonce += 1
        return Work(case.in_flight, case.tail, mean_tokens, self._nonce)

    def offline_seconds(self, case: Case, mean_tokens: int) -> float:
        """Seconds of the reference for the work of ``case``: of its slowest process."""
        work = self._new(case, mean_tokens)
        for rank, child in enumerate(self.reference):
            child.send((work, rank))
        return max(
            child.answer(MEASURE_S, f"work of '{case.name}'")["seconds"] for child in self.reference
        )

    def pool_seconds(self, case: Case, mean_tokens: int) -> dict[str, float]:
        """``seconds`` of the pool for ``case``, and ``sync_seconds`` of them for the weights."""
        self.pool.send((self._new(case, mean_tokens), case))
        return self.pool.answer(MEASURE_S, f"'{case.name}'")

    def warm_up(self, cases: list[Case]) -> None:
        """Every path once, with short responses: first uses compile, pack weights and open
        connections.
        """
        work = {"name": "warm-up", "in_flight": BASE.in_flight, "tail": False}
        for case in dict.fromkeys(replace(case, **work) for case in cases):
            self.pool_seconds(case, WARM_UP_TOKENS)
        self.offline_seconds(BASE, WARM_UP_TOKENS)

    def round(self, cases: list[Case]) -> Iterator[tuple[Case, dict[str, float]]]:
        """Each case once, beside a reference for its work, which two cases in succession share."""
        references: dict[tuple[int, bool], float] = {}
        uses: Counter[tuple[int, bool]] = Counter()
        for case in cases:
            work = (case.in_flight, case.tail)
            if uses[work] % 2 == 0:
                references[work] = self.offline_seconds(case, self.mean_tokens)
            uses[work] += 1
            yield (
                case,
                {**self.pool_seconds(case, self.mean_tokens), "offline_seconds": references[work]},
            )


def summary(
    servers: Servers, case: Case, repeats: list[dict[str, float]], mean_tokens: int
) -> dict[str, Any]:
    """Rates of a case in tokens/s and trajectories/s, with the reference's, and the ratio pool /
    reference.
    """
    tokens = case.in_flight * mean_tokens
    rates = [tokens / repeat["seconds"] for repeat in repeats]
    offline_rates = [tokens / repeat["offline_seconds"] for repeat in repeats]
    return {
        "servers": asdict(servers),
        "case": asdict(case),
        "response_tokens": tokens,
        "tokens_per_s": common.median_spread(rates),
        "trajectories_per_s": common.median_spread(
            [case.in_flight / repeat["seconds"] for repeat in repeats]
        ),
        "offline_tokens_per_s": common.median_spread(offline_rates),
        "pool_over_offline": common.geometric_ratio(rates, offline_rates, paired=True),
        "repeats": repeats,
    }


def row(result: dict[str, Any]) -> dict[str, Any]:
    """A result as a line of the table."""
    return {
        "servers": result["servers"]["name"],
        "case": result["case"]["name"],
        "tokens/s": _spread(result["tokens_per_s"]),
        "trajectories/s": result["trajectories_per_s"]["median"],
        "offline tokens/s": _spread(result["offline_tokens_per_s"]),
        "pool / offline": common.ratio_text(result["pool_over_offline"]),
    }


def _spread(values: dict[str, float]) -> str:
    return f"{values['median']:,.0f} ({values['min']:,.0f} to {values['max']:,.0f})"


def measure(
    plan: list, repeats: int, mean_tokens: int, model: str, logs: Path, progress: Progress
) -> list[dict]:
    """Every case of ``plan``, ``repeats`` times."""
    results = []
    task = progress.add_task("", total=sum(1 + repeats * len(cases) for _servers, cases in plan))
    for servers, cases in plan:
        progress.update(task, description=f"{servers.name}: start (about 2 minutes)")
        with children(servers, model, logs) as members:
            rounds = Rounds(members, mean_tokens)
            progress.update(task, description=f"{servers.name}: warm-up")
            rounds.warm_up(cases)
            progress.advance(task)
            found: dict[Case, list[dict[str, float]]] = {case: [] for case in cases}
            for repeat in range(repeats):
                # There and back, so that a drift of the machine does not look like a difference of
                # cases.
                for case, result in rounds.round(cases if repeat % 2 == 0 else cases[::-1]):
                    progress.update(
                        task,
                        advance=1,
                        description=f"{servers.name}: {case.name}, round {repeat + 1}",
                    )
                    found[case].append(result)
        results += [summary(servers, case, found[case], mean_tokens) for case in cases]
    return results


def main(
    quick: Annotated[
        bool, typer.Option(help="One configuration of servers, 3 rounds, short responses.")
    ] = False,
    model: Annotated[
        Path | None, typer.Option(help="Folder of a model; by default SmolLM2-135M-Instruct.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Results as JSON.")] = Path("outputs/rollout.json"),
) -> None:
    """Measure every case in turn with its reference, and report."""
    set_environment()
    os.environ.update(HF_HUB_OFFLINE="1", PYTHONPATH=str(Path(__file__).parents[1]))
    # Ends the children as an error does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    name = str(model or prepare_model())
    plan, repeats, mean_tokens = (QUICK, 3, 16) if quick else (FULL, 4, 28)
    logs = Path(tempfile.mkdtemp(prefix="rollout-logs-"))
    with make_progress_bars(Console()) as progress:
        progress.console.print(f"logs: {logs}")
        results = measure(plan, repeats, mean_tokens, name, logs, progress)
    # After an error they stay, as the error names them.
    shutil.rmtree(logs)
    common.table([row(result) for result in results], list(row(results[0])))
    arguments = {"quick": quick, "model": name, "rounds": repeats, "mean_tokens": mean_tokens}
    common.write_report(output, "rollout", arguments, results)
    print(f"results: {output}")


if __name__ == "__main__":
    typer.run(main)
