"""Computes the measured steps of a run from its spans and metrics, for :mod:`benchmarks.pipeline`.

Invariants:
* All modes are compared on the same work: a step that trained any other work is an error. Where the
  mode itself moves prompts between steps, each step has the tokens that it trained, and only tokens
  per second can be compared.
* The phases of a step add up to its wall-clock time; unnamed time is ``other``.
* ``stolen_s`` are the processor seconds that other tenants of the machine took during a step: they
  blur every comparison.
"""

import math
from collections import defaultdict

from benchmarks.modes import TrainerMode
from benchmarks.workload import Workload

# Batches at the start of a run that are sampled and trained but not measured: engines get faster
# over the first ones.
WARM_UP_BATCHES = 1
# Timers by phase. verl's `gen` is sampling itself in sync, and waiting for it in its other modes.
PHASES = {
    "wait": ("timing_s/gen", "pipeline/timing_s/wait_rollout", "pipeline/timing_s/collect"),
    "weight sync": ("timing_s/update_weights",),
    "log-probs": ("timing_s/old_log_prob", "timing_s/ref"),
    "advantage": ("timing_s/reward", "timing_s/adv"),
    "update": ("timing_s/update_actor", "timing_s/update_critic"),
}


def summarize_run(
    mode: TrainerMode, repeat: int, run: dict, workloads: tuple[Workload, ...], batches: int
) -> dict:
    """Return the measured steps of one run, with the sampling of their batches.

    Args:
        run: ``spans``, ``metrics`` and ``start`` of a run (:func:`benchmarks.pipeline.run_mode`).
        batches: batches per workload.

    Raises:
        RuntimeError: a step trained other work than that of its workload, in a mode that keeps the
            data loader's batches.
    """
    step_ends = [span for span in run["spans"] if span["name"] == "step ends"]
    end_times = [span["start"] + span["seconds"] for span in step_ends]
    sampled = _collect_batches(run["spans"], len(workloads[0].lengths), mode.version_offset)
    steps: list[dict] = []
    for position, workload in enumerate(workloads):
        for step in list_measured_steps(position, batches):
            tokens = _count_work(mode, step, run["metrics"][step], sampled[step], workload)
            seconds = end_times[step - 1] - end_times[step - 2]
            phases = _sum_phases(run["metrics"][step])
            # The batch whose sampling may begin in this step.
            parallel_batch = sampled[min(step + mode.batches_ahead, max(sampled))]
            steps.append(
                {
                    "workload": workload.name,
                    "step": step,
                    "seconds": seconds,
                    "phases": {**phases, "other": seconds - sum(phases.values())},
                    "stolen_s": step_ends[step - 1]["stolen"] - step_ends[step - 2]["stolen"],
                    "sampling_s": parallel_batch["end"] - parallel_batch["start"],
                    "tokens": tokens,
                    "versions": sampled[step]["versions"],
                }
            )
    return {
        "mode": mode.name,
        "repeat": repeat,
        "pools": mode.pools,
        "poll_s": mode.poll_s,
        "ahead": mode.batches_ahead,
        "startup_s": min(batch["start"] for batch in sampled.values()) - run["start"],
        "steps": steps,
    }


def list_measured_steps(position: int, batches: int) -> range:
    """Return the measured steps of the workload at ``position``: all but its first and last."""
    first = WARM_UP_BATCHES + position * batches + 1
    return range(first + 1, first + batches - 1)


def _count_work(
    mode: TrainerMode, step: int, metrics: dict[str, float], sampled: dict, workload: Workload
) -> int:
    """Response tokens that a step trained."""
    expected = workload.token_count
    trained = round(metrics["response_length/mean"] * workload.trajectory_count)
    if mode.keeps_batches and (trained != expected or sampled["tokens"] != expected):
        raise RuntimeError(
            f"{mode.name}, step {step}: {trained} response tokens trained, {sampled['tokens']} "
            f"sampled; {workload.name} has {expected}"
        )
    return trained


def _sum_phases(metrics: dict[str, float]) -> dict[str, float]:
    return {
        name: sum(metrics.get(timer, 0.0) for timer in timers) for name, timers in PHASES.items()
    }


def _collect_batches(spans: list[dict], prompts: int, version_offset: int) -> dict[int, dict]:
    """Return the sampling of each batch, by its number from 1.

    ``start``: first request, ``end``: last reward, in seconds since the epoch; ``tokens``;
    ``versions``: [first, last] weight version of each trajectory, None if unknown.

    Args:
        prompts: prompts per batch.
    """
    batches: dict[int, dict] = defaultdict(
        lambda: {"start": math.inf, "end": 0.0, "tokens": 0, "versions": []}
    )
    for span in spans:
        if span["name"] in ("generate", "reward"):
            batch = batches[span["row"] // prompts + 1]
            batch["start"] = min(batch["start"], span["start"])
            batch["end"] = max(batch["end"], span["start"] + span["seconds"])
        if span["name"] == "generate":
            batch["tokens"] += span["tokens"]
            batch["versions"].append(
                [v if v is None else v - version_offset for v in span["versions"]]
            )
    return dict(batches)
