"""The rows of the acceptance table, each computed from what the run left.

Invariants:
* A row passes only if something was compared; what could not be looked at is ``unchecked``, with
  the reason.
* A row that fails says what was found and what was expected.
* Nothing here reads a file or looks at a process.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from verl_pipeline.acceptance.outcome import Outcome
from verl_pipeline.acceptance.plan import STALENESS, Plan
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.testing import tiny_run
from verl_pipeline.trainer.schedule import oldest_allowed_version

_SHOWN_FAULTS = 3
# Of means that verl computes in single precision.
_TOLERANCE = 1e-4
_ENDED_EARLY = "the run ended before it could be checked; see the row run"


class Verdict(StrEnum):
    """What a check says."""

    PASSED = "pass"
    FAILED = "FAIL"
    UNCHECKED = "unchecked"


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        detail: what was seen, with its figures; of a failure what was expected, too.
        fix: what to do about a failure.
    """

    name: str
    verdict: Verdict
    detail: str
    fix: str = ""


def list_rows(outcome: Outcome, plan: Plan) -> list[Row]:
    """All rows."""
    return [check(outcome, plan) for check in CHECKS]


def _judge(name: str, faults: Sequence[str], is_complete: bool, detail: str, fix: str) -> Row:
    """A failure if there are faults; ``unchecked`` if not everything was there to be compared."""
    if faults:
        more = len(faults) - _SHOWN_FAULTS
        text = "; ".join(faults[:_SHOWN_FAULTS]) + (f"; and {more} more" if more > 0 else "")
        return Row(name, Verdict.FAILED, text, fix)
    if not is_complete:
        return Row(name, Verdict.UNCHECKED, _ENDED_EARLY)
    return Row(name, Verdict.PASSED, detail)


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


def check_updates(outcome: Outcome, plan: Plan) -> Row:
    """Every step has changed the model."""
    metrics = outcome.run.metrics
    faults = []
    for step, data in metrics.items():
        for name in ("actor/grad_norm", "actor/pg_loss"):
            if not _is_finite(data.get(name)):
                faults.append(f"step {step}: {name} is {data.get(name)}, no finite number")
        if data.get("actor/grad_norm") == 0.0 or data.get("filters/skipped_update"):
            faults.append(f"step {step}: it has changed no weight")
    norms = [data.get("actor/grad_norm") or 0.0 for data in metrics.values()]
    shown = ", ".join(format_decimal(norm, 3) for norm in norms)
    detail = f"{len(metrics)} updates with gradient norms {shown}"
    fix = "precision and optimizer settings, then the trainer's part of the log"
    return _judge("updates", faults, _has_all_steps(outcome, plan), detail, fix)


def check_versions(outcome: Outcome, plan: Plan) -> Row:
    """Each batch was sampled with the weights of the schedule: the last but one."""
    faults = []
    for step, data in outcome.run.metrics.items():
        expected = step - 1 - oldest_allowed_version(step, STALENESS)
        if data.get("pipeline/staleness") != expected:
            found = data.get("pipeline/staleness")
            faults.append(f"step {step}: pipeline/staleness is {found}, not {expected}")
    for step, records in _group_by_step(outcome):
        version = oldest_allowed_version(step, STALENESS)
        wrong = [record for record in records if record["versions"] != [version, version]]
        if wrong:
            found = wrong[0]["versions"]
            faults.append(
                f"batch {step}: {len(wrong)} of {len(records)} responses have the versions "
                f"{found}, not v_{version}"
            )
    last = max(outcome.run.metrics, default=0)
    sampled_with = oldest_allowed_version(last, STALENESS) if last else 0
    detail = f"the batch of step {last} was sampled with v_{sampled_with}, trained at v_{last - 1}"
    fix = "report it with the log: the schedule is broken"
    return _judge("versions", faults, _has_all_batches(outcome, plan), detail, fix)


def check_batches(outcome: Outcome, plan: Plan) -> Row:
    """Each step has trained the loader's next prompts, each of them once a sample."""
    faults = []
    for step, records in _group_by_step(outcome):
        if step > plan.steps:
            faults.append(f"batch {step} was sampled, and no step trains it")
            continue
        found = Counter((record["index"], record["session"]) for record in records)
        wanted = Counter((row, n) for row in plan.list_rows(step) for n in range(plan.samples))
        if missing := wanted - found:
            faults.append(f"batch {step}: {_describe(missing)} missing")
        if surplus := found - wanted:
            faults.append(f"batch {step}: {_describe(surplus)} too many")
        for record in records:
            if tiny_run.make_prompt(record["index"]) not in tiny_run.decode(record["prompt"]):
                shown = tiny_run.decode(record["prompt"])
                faults.append(f"batch {step}: row {record['index']} has the prompt {shown!r}")
    rows = plan.steps * plan.prompts
    detail = (
        f"{plan.steps} x {plan.prompts} prompts: rows 0 to {rows - 1} in their order, each once"
    )
    fix = "report it with the log: prompts are lost, repeated or mixed up"
    return _judge("batches", faults, _has_all_batches(outcome, plan), detail, fix)


def check_responses(outcome: Outcome, plan: Plan) -> Row:
    """What was sampled is what is trained, by number and length."""
    faults, tokens, seconds = [], 0, 0.0
    limit = tiny_run.RESPONSE_LENGTH
    for step, records in _group_by_step(outcome):
        lengths = [len(record["response"]) for record in records]
        tokens += sum(lengths)
        if not all(1 <= length <= limit for length in lengths):
            faults.append(f"batch {step}: responses of {min(lengths)} to {max(lengths)} tokens")
        mean = sum(lengths) / len(lengths)
        faults += _compare_mean(outcome, step, "filters/before/response_length_mean", mean)
        data = outcome.run.metrics.get(step, {})
        seconds += data.get("pipeline/batch/generating_s") or 0.0
    rate = f", {format_decimal(tokens / seconds, 0, group=True)} tokens/s" if seconds else ""
    count = len(outcome.run.trajectories)
    detail = f"{count} responses with {tokens} tokens{rate} (start of each batch included)"
    fix = "the rollout servers' part of the log"
    return _judge("responses", faults, _has_all_batches(outcome, plan), detail, fix)


def check_rewards(outcome: Outcome, plan: Plan) -> Row:
    """Each response has the reward that its text has, and the trainer got these rewards."""
    faults = []
    for step, records in _group_by_step(outcome):
        wrong = [record for record in records if not _has_own_reward(record)]
        if wrong:
            faults.append(
                f"batch {step}: {len(wrong)} of {len(records)} rewards are not those of their "
                f"responses; the first is {wrong[0]['reward']}"
            )
        elif len(records) == plan.prompts * plan.samples:
            mean = sum(record["reward"] for record in records) / len(records)
            faults += _compare_mean(outcome, step, "filters/before/reward_mean", mean)
    for step, data in outcome.run.metrics.items():
        if share := data.get("pipeline/infrastructure/share"):
            faults.append(f"step {step}: {format_decimal(100 * share)} % of its responses failed")
    count = len(outcome.run.trajectories)
    detail = f"{count} of {count} are those of their responses, and reached the trainer"
    fix = "the reward workers' part of the log"
    return _judge("rewards", faults, _has_all_batches(outcome, plan), detail, fix)


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
    unchecked = sum(data.get(f"{prefix}unchecked_tensors") or 0 for data in metrics)
    gaps = [data[f"{prefix}log_prob_gap"] for data in metrics if f"{prefix}log_prob_gap" in data]
    if not _has_all_steps(outcome, plan):
        return Row("weights", Verdict.UNCHECKED, _ENDED_EARLY)
    if not any(checked):
        text = "the run reports no fingerprint of the weights that its replicas hold"
        if unchecked:
            text = f"none of {unchecked:g} tensors could be compared in this rollout engine"
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
    faults, totals = [], Counter[str]()
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
    return _judge("weight sync", faults, _has_all_steps(outcome, plan), detail, fix)


def check_processes(outcome: Outcome, plan: Plan) -> Row:
    """No process of the run is left."""
    if left := outcome.run.survivors:
        fix = "they were killed now; report it with the log"
        return _judge(
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
    return _judge(
        "files", faults, True, "nothing left in /dev/shm and in the temporary folder", fix
    )


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


def _has_all_steps(outcome: Outcome, plan: Plan) -> bool:
    return set(range(1, plan.steps + 1)) <= set(outcome.run.metrics)


def _has_all_batches(outcome: Outcome, plan: Plan) -> bool:
    steps = {record["step"] for record in outcome.run.trajectories}
    return _has_all_steps(outcome, plan) and set(range(1, plan.steps + 1)) <= steps


def _group_by_step(outcome: Outcome) -> Iterator[tuple[int, list[dict]]]:
    """Each batch with its records; that of a run that ended early only if its step was trained."""
    records = outcome.run.trajectories
    for step in sorted({record["step"] for record in records}):
        if step in outcome.run.metrics or outcome.run.returncode == 0:
            yield step, [record for record in records if record["step"] == step]


def _compare_mean(outcome: Outcome, step: int, metric: str, expected: float) -> Iterator[str]:
    data = outcome.run.metrics.get(step, {})
    found = data.get(metric)
    if data and not (_is_finite(found) and abs(found - expected) <= _TOLERANCE * max(1, expected)):
        shown = f"{found:.4g}" if _is_finite(found) else found
        yield f"step {step}: {metric} is {shown}, of what was sampled it is {expected:.4g}"


def _has_own_reward(record: dict) -> bool:
    text = tiny_run.decode(record["response"])
    expected = tiny_run.compute_text_score("", text, "")
    return _is_finite(record["reward"]) and abs(record["reward"] - expected) <= _TOLERANCE


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _describe(counts: Counter[tuple[int, int]]) -> str:
    rows = sorted({row for row, _session in counts})
    shown = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
    return f"{counts.total()} responses to rows {shown}"
