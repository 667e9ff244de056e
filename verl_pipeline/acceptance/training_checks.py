"""The rows about what was sampled and trained: updates, versions, batches, responses, rewards.

Invariants:
* What was sampled is compared with what was trained: the recorded trajectories with the trainer's
  own metrics.
* Nothing here reads a file or looks at a process.
"""

from collections import Counter
from collections.abc import Iterator

from verl_pipeline.acceptance.outcome import Outcome
from verl_pipeline.acceptance.plan import STALENESS, Plan
from verl_pipeline.acceptance.rows import Row, has_all_batches, has_all_steps, is_finite, judge
from verl_pipeline.number_formats import format_decimal
from verl_pipeline.testing import tiny_run
from verl_pipeline.trainer.schedule import oldest_allowed_version

# Of means that verl computes in single precision.
_TOLERANCE = 1e-4


def check_updates(outcome: Outcome, plan: Plan) -> Row:
    """Every step has changed the model."""
    metrics = outcome.run.metrics
    faults = []
    for step, data in metrics.items():
        for name in ("actor/grad_norm", "actor/pg_loss"):
            if not is_finite(data.get(name)):
                faults.append(f"step {step}: {name} is {data.get(name)}, no finite number")
        if data.get("actor/grad_norm") == 0.0 or data.get("filters/skipped_update"):
            faults.append(f"step {step}: it has changed no weight")
    norms = [data.get("actor/grad_norm") or 0.0 for data in metrics.values()]
    shown = ", ".join(format_decimal(norm, 3) for norm in norms)
    detail = f"{len(metrics)} updates with gradient norms {shown}"
    fix = "precision and optimizer settings, then the trainer's part of the log"
    return judge("updates", faults, has_all_steps(outcome, plan), detail, fix)


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
    return judge("versions", faults, has_all_batches(outcome, plan), detail, fix)


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
    return judge("batches", faults, has_all_batches(outcome, plan), detail, fix)


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
    return judge("responses", faults, has_all_batches(outcome, plan), detail, fix)


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
    return judge("rewards", faults, has_all_batches(outcome, plan), detail, fix)


def _group_by_step(outcome: Outcome) -> Iterator[tuple[int, list[dict]]]:
    """Each batch with its records; that of a run that ended early only if its step was trained."""
    records = outcome.run.trajectories
    for step in sorted({record["step"] for record in records}):
        if step in outcome.run.metrics or outcome.run.returncode == 0:
            yield step, [record for record in records if record["step"] == step]


def _compare_mean(outcome: Outcome, step: int, metric: str, expected: float) -> Iterator[str]:
    data = outcome.run.metrics.get(step, {})
    found = data.get(metric)
    if data and not (is_finite(found) and abs(found - expected) <= _TOLERANCE * max(1, expected)):
        shown = f"{found:.4g}" if is_finite(found) else found
        yield f"step {step}: {metric} is {shown}, of what was sampled it is {expected:.4g}"


def _has_own_reward(record: dict) -> bool:
    text = tiny_run.decode(record["response"])
    expected = tiny_run.compute_text_score("", text, "")
    return is_finite(record["reward"]) and abs(record["reward"] - expected) <= _TOLERANCE


def _describe(counts: Counter[tuple[int, int]]) -> str:
    rows = sorted({row for row, _session in counts})
    shown = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
    return f"{counts.total()} responses to rows {shown}"
