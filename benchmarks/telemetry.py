"""Measures what a run's records cost: time and bytes a trajectory, and the driver's time a step.

``python -m benchmarks.telemetry [--prompts 1024] [--group 16] [--output results.json]``.

One process runs a batch of trajectories that do nothing, through the recording agent loop worker
and through the same worker without it, in turns; the difference of the processor times, the writing
thread's included, is the cost of recording. The driver's part (prompts that are submitted, sessions
that are trained, replicas' pages that are read) is timed alone: there is nothing to subtract.
Neither engine nor trainer runs: a run on real engines compares whole steps, and is noisier than
what is measured here.
"""

import asyncio
import random
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import typer
from omegaconf import OmegaConf
from verl.utils import tensordict_utils as tu
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from benchmarks.common import ReportOption, print_table, summarize_spread, write_report
from verl_pipeline.telemetry.recorder import Recorder, RunTarget
from verl_pipeline.telemetry.records import FORMAT, Gauge, Header
from verl_pipeline.verl_adapter.telemetry import agent_loops
from verl_pipeline.verl_adapter.telemetry.agent_loop_calls import RecordedManager
from verl_pipeline.verl_adapter.telemetry.first_token_server import FIRST_TOKEN_AGE
from verl_pipeline.verl_adapter.telemetry.replica_gauges import parse_gauges
from verl_pipeline.verl_adapter.telemetry.trainers import add_moments

# The issue's limits.
TRAJECTORY_LIMIT_US, BYTES_LIMIT, STEP_SHARE_LIMIT = 1000.0, 1024, 0.01
# Trajectories that one worker runs at once.
AT_ONCE = 128
HEADER = Header(
    format=FORMAT, role="", host="", pid=0, started=0.0, run_name="benchmark",
    mode="one_off_pipeline", staleness=1, trainer_devices=1, rollout_devices=1,
    shares_devices=False, replicas=8, slots=256, group_size=16, batch_size=1024, first_step=1,
    last_step=1,
)  # fmt: skip


class IdleClient(LLMServerClient):
    """verl's client of one server, which answers at once."""

    def __init__(self) -> None:
        super().__init__(OmegaConf.create({"actor_rollout_ref": {"rollout": {"name": "vllm"}}}))
        self._server = SimpleNamespace(generate=SimpleNamespace(remote=self._answer))

    async def _acquire_server(self, request_id: str, **extra: Any) -> tuple[str, Any]:
        return "10.0.0.1:8000", self._server

    def _release_server(self, server_id: str, request_id: str | None = None) -> None:
        pass

    async def _answer(self, **request: Any) -> TokenOutput:
        return TokenOutput(token_ids=[1], extra_fields={FIRST_TOKEN_AGE: 100.0})


class IdleWorker:
    """An agent loop worker whose trajectories do nothing."""

    def __init__(self) -> None:
        rollout = SimpleNamespace(response_length=32768)
        self.config = SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=rollout))
        self.llm_client = IdleClient()
        self.reward_loop_worker_handles: list[Any] = list(range(8))

    async def _run_agent_loop(
        self, sampling_params: dict, *, trajectory: dict, session_id: int, uid: str, **kwargs: Any
    ) -> None:
        await self.llm_client.generate(uid, prompt_ids=[1], sampling_params={})
        output = SimpleNamespace(
            extra_fields={
                "min_global_steps": 11,
                "max_global_steps": 12,
                "reward_extra_info": {"verdict": "wrong_answer", "reason": "test 3 of 12 differs"},
            },
            prompt_ids=[1] * 512,
            response_ids=[1] * 8192,
            reward_score=None,
        )
        await self._compute_score([output], kwargs)

    async def _compute_score(self, outputs: list[Any], kwargs: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        random.choice(self.reward_loop_worker_handles)
        outputs[-1].reward_score = 0.5


def make_uid(prompt: int) -> str:
    """As long as verl's own; ours are shorter."""
    return str(uuid.UUID(int=prompt))


async def _run_trajectories(worker: Any, prompts: int, group: int) -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def run_one(prompt: int, session: int) -> None:
        async with slots:
            await worker._run_agent_loop(
                {},
                trajectory={"step": 12, "validate": False},
                session_id=session,
                uid=make_uid(prompt),
            )

    await asyncio.gather(
        *[
            asyncio.create_task(run_one(prompt, session))
            for prompt in range(prompts)
            for session in range(group)
        ]
    )


def _time_cpu(work: Callable[[], Any]) -> float:
    """Processor seconds of this process, all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure_workers(folder: Path, prompts: int, group: int) -> dict[str, float]:
    """Cost of recording a batch in the agent loop workers, altogether.

    Returns:
        ``recorded_s`` and ``plain_s`` (processor seconds), ``bytes`` written.
    """
    target = RunTarget(str(folder), HEADER)
    recorder = Recorder(target, "agent_loop")
    recorded_class = agent_loops.record_worker(IdleWorker)
    given = agent_loops.make_target, agent_loops.open_recorder
    agent_loops.make_target = lambda _config: target  # type: ignore[assignment]
    agent_loops.open_recorder = lambda _target, _role: recorder  # type: ignore[assignment]
    try:
        recorded, plain = recorded_class(), IdleWorker()
    finally:
        agent_loops.make_target, agent_loops.open_recorder = given

    def run_recorded() -> None:
        asyncio.run(_run_trajectories(recorded, prompts, group))
        recorder.flush()

    plain_s = _time_cpu(lambda: asyncio.run(_run_trajectories(plain, prompts, group)))
    recorded_s = _time_cpu(run_recorded)
    recorder.close()
    return {"recorded_s": recorded_s, "plain_s": plain_s, "bytes": _count_bytes(folder)}


def measure_driver(folder: Path, prompts: int, group: int, replicas: int) -> dict[str, float]:
    """Cost of a step on the driver.

    Returns:
        ``submit_s`` and ``trained_s``: processor seconds that the trainer waits for; ``write_s``:
        those of the writing thread's work; ``gauges_s``: processor seconds of one
        reading of all replicas, without the network; ``bytes`` written.
    """
    recorder = Recorder(RunTarget(str(folder), HEADER), "driver")
    keys = [make_uid(prompt) for prompt in range(prompts)]
    batch = tu.get_tensordict(
        {"uid": np.array(keys, dtype=object), "index": np.arange(prompts).astype(object)}
    )
    tu.assign_non_tensor_data(batch, "global_steps", 12)
    manager = RecordedManager(
        SimpleNamespace(generate_sequences=lambda _prompts: None), recorder, has_batches=True
    )
    start = time.thread_time()
    manager.generate_sequences(batch)
    submitted = time.thread_time()
    sessions = {(key, session) for key in keys for session in range(group)}
    add_moments(recorder, agent_loops.Moment.TRAINED, sessions, step=12, batch=12, reasons={})
    trained = time.thread_time()
    write_s = _time_cpu(recorder.flush)

    def read_gauges() -> None:
        for replica in range(replicas):
            recorder.add(Gauge(f"replica {replica}", recorder.now(), **parse_gauges(_PAGE)))

    gauges_s = _time_cpu(read_gauges)
    recorder.close()
    return {
        "submit_s": submitted - start,
        "trained_s": trained - submitted,
        "write_s": write_s,
        "gauges_s": gauges_s,
        "bytes": _count_bytes(folder),
    }


def _count_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.jsonl"))


# As long as vLLM's page with its histograms.
_PAGE = "".join(
    f'vllm:{name}{{engine="0",model_name="m"}} 17.0\n'
    for name in ("num_requests_running", "kv_cache_usage_perc", "generation_tokens_total")
) + "".join(
    f'vllm:e2e_request_latency_seconds_bucket{{engine="0",le="{le}",model_name="m"}} {le}\n'
    for le in range(400)
)


def main(
    prompts: Annotated[int, typer.Option(min=1, help="Prompts of a batch.")] = 1024,
    group: Annotated[int, typer.Option(min=1, help="Trajectories of a prompt.")] = 16,
    replicas: Annotated[int, typer.Option(min=1, help="Rollout replicas.")] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each.")] = 5,
    step_s: Annotated[float, typer.Option(help="Seconds of a step, for the share.")] = 60.0,
    output: ReportOption = Path("outputs/telemetry.json"),
) -> None:
    """Measure, print, and write the report."""
    count = prompts * group
    measured: list[dict[str, float]] = []
    for _repeat in range(repeats):
        with tempfile.TemporaryDirectory(prefix="vptl") as scratch:
            workers = measure_workers(Path(scratch) / "workers", prompts, group)
            driver = measure_driver(Path(scratch) / "driver", prompts, group, replicas)
        waits = driver["submit_s"] + driver["trained_s"]
        measured.append(
            {
                "worker_us_per_trajectory": (workers["recorded_s"] - workers["plain_s"])
                / count
                * 1e6,
                "bytes_per_trajectory": (workers["bytes"] + driver["bytes"]) / count,
                "driver_wait_s": waits,
                "driver_write_s": driver["write_s"],
                "gauges_s_per_reading": driver["gauges_s"],
                # The thread's work takes the interpreter from the driver's, at worst all of it.
                "driver_share_of_step": (waits + driver["write_s"]) / step_s + driver["gauges_s"],
            }
        )
    names = list(measured[0])
    spreads = {name: summarize_spread([one[name] for one in measured]) for name in names}
    limits = {
        "worker_us_per_trajectory": TRAJECTORY_LIMIT_US,
        "bytes_per_trajectory": BYTES_LIMIT,
        "driver_share_of_step": STEP_SHARE_LIMIT,
    }
    arguments = {
        "prompts": prompts, "group": group, "replicas": replicas, "repeats": repeats,
        "step_s": step_s,
    }  # fmt: skip
    results = {"measured": measured, "spreads": spreads, "limits": limits}
    write_report(output, "telemetry", arguments, results)
    print_table(
        [{"figure": name, **spreads[name], "limit": limits.get(name, "")} for name in names],
        ["figure", "median", "min", "max", "limit"],
    )
    print(f"results: {output}")


if __name__ == "__main__":
    typer.run(main)
