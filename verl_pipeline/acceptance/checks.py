"""All checks of an acceptance run, and those about its end and its weights.

Invariant: nothing here reads a file or looks at a process.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

from verl_pipeline.acceptance.outcome import Outcome
from verl_pipeline.acceptance.plan import Plan
from verl_pipeline.acceptance.rows import ENDED_EARLY, Row, Verdict, has_all_steps, judge
from verl_pipeline.acceptance.training_checks import (
    check_batches,
    check_responses,
    check_rewards,
    check_updates,
    check_versions,
)
from verl_pipeline.number_formats import format_decimal


def list_rows(outcome: Outcome, plan: Plan) -> list[Row]:
    """All rows."""
    return [check(outcome, plan) for check in CHECKS]


def check_run(outcome: Outcome, plan: Plan) -> Row:
    """The run ended by itself, and well."""
    run, seconds = outcome.run, f"{format_decimal(outcome.seconds, 0)} s"
    steps = sum(data.get("timing_s/step") or 0.0 for data in run.metrics.values())
    if outcome.is_late:
        done = f"{len(run.metrics)} of {plan.steps} steps"
        text = (
            f"not at its end after {seconds}, with {done}; the last that it said: {outcome.cause}"
        )
        return Row("run", Verdict.FAILED, text, "look at the end of the log")
    if run.returncode < 0:
        fix = "most often the memory is used up: look at `dmesg`, and at what else runs here"
        return Row(
            "run", Verdict.FAILED, f"killed by signal {-run.returncode} after {seconds}", fix
        )
    if run.returncode:
        text = f"exit code {run.returncode} after {seconds}: {outcome.cause}"
        return Row("run", Verdict.FAILED, text, "correct what this error names; the log has more")
    detail = f"ended well after {seconds}, of which the steps took {format_decimal(steps)} s"
    return Row("run", Verdict.PASSED, detail)


def check_weights(outcome: Outcome, plan: Plan) -> Row:
    """The replicas hold the weights that the trainer sent, as the trainer's own canary found."""
    fix = (
        "do not train with these settings; try another checkpoint_engine.backend, and report it "
        "with the log"
    )
    if error := outcome.weights_error:
        return Row("weights", Verdict.FAILED, error, fix)
    metrics = outcome.run.metrics.values()
    prefix = "pipeline/weights/"
    checked = [
        data[f"{prefix}checked_tensors"] for data in metrics if f"{prefix}checked_tensors" in data
    ]
    unchecked = max((data.get(f"{prefix}unchecked_tensors") or 0 for data in metrics), default=0)
    gaps = [data[f"{prefix}log_prob_gap"] for data in metrics if f"{prefix}log_prob_gap" in data]
    if not has_all_steps(outcome, plan):
        return Row("weights", Verdict.UNCHECKED, ENDED_EARLY)
    if not any(checked):
        text = "the run reports no fingerprint of the weights that its replicas hold"
        if unchecked:
            text = f"none of {unchecked:g} tensors could be compared in this rollout engine"
        return Row("weights", Verdict.UNCHECKED, text)
    if not all(checked) or len(checked) < plan.steps:
        text = f"compared after {sum(map(bool, checked))} of {plan.steps} weight syncs only"
        return Row("weights", Verdict.UNCHECKED, text)
    detail = f"{max(checked):g} tensors are in every replica as the trainer sent them"
    if unchecked:
        detail += f"; {unchecked:g} could not be compared"
    if gaps:
        detail += f"; log-probs differ by {max(gaps):.1e} at most"
    return Row("weights", Verdict.PASSED, detail)


def check_weight_sync(outcome: Outcome, plan: Plan) -> Row:
    """Every step but the first began with a weight sync, which interrupted nothing."""
    prefix = "pipeline/weight_sync/"
    faults: list[str] = []
    totals: defaultdict[str, float] = defaultdict(float)
    for step, data in outcome.run.metrics.items():
        if step > 1 and not data.get(f"{prefix}count"):
            faults.append(f"step {step}: no weight sync")
        if aborted := data.get(f"{prefix}aborted_requests"):
            faults.append(f"step {step}: a weight sync has interrupted {aborted:g} requests")
        for name in ("count", "seconds", "bytes"):
            totals[name] += data.get(f"{prefix}{name}") or 0
    count, seconds, size = totals["count"], totals["seconds"], totals["bytes"]
    detail = f"{count:g} in {format_decimal(seconds, 2)} s"
    if size and seconds:
        detail += (
            f", {format_decimal(size / count / 1e6)} MB each, to each replica: "
            f"{format_decimal(size / seconds / 1e6)} MB/s"
        )
    else:
        detail += "; this engine reports no bytes"
    fix = "the backend's settings (rollout.checkpoint_engine), then the network between the pools"
    return judge("weight sync", faults, has_all_steps(outcome, plan), detail, fix)


def check_processes(outcome: Outcome, plan: Plan) -> Row:
    """No process of the run is left."""
    if left := outcome.run.survivors:
        fix = "they were killed now; report it with the log"
        return judge(
            "processes", [f"still there 5 s later: {name}" for name in left], True, "", fix
        )
    if address := outcome.joined_ray:
        text = f"the Ray at {address} started them; `ray list actors` shows what is left"
        return Row("processes", Verdict.UNCHECKED, text)
    return Row("processes", Verdict.PASSED, "all have ended")


def check_files(outcome: Outcome, plan: Plan) -> Row:
    """No shared memory and no temporary file of the run is left on this machine."""
    faults = [f"left behind: {path}" for path in outcome.run.leftovers]
    fix = "they were removed now; if another run of yours ended meanwhile, they may be its own"
    return judge("files", faults, True, "nothing left in /dev/shm and in the temporary folder", fix)


CHECKS: Sequence[Callable[[Outcome, Plan], Row]] = (
    check_run,
    check_updates,
    check_versions,
    check_batches,
    check_responses,
    check_rewards,
    check_weights,
    check_weight_sync,
    check_processes,
    check_files,
)
