"""Rules that compute the caveats of a task's score.

Invariants:
* Every rule is listed in :data:`RULES`; no other module decides what is a caveat of a score.
* A validation split has no protocol: users choose its settings, so they are no caveats.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from verl_pipeline.evaluation.caveats import Caveat
from verl_pipeline.evaluation.engines import RequestCheck
from verl_pipeline.evaluation.eval_settings import EvalConfig, is_preset_model
from verl_pipeline.evaluation.missing_answers import describe_missing_answers
from verl_pipeline.evaluation.task_plan import TaskPlan
from verl_pipeline.number_formats import format_percent
from verl_pipeline.sandbox import REMOTE_TIER


@dataclass(frozen=True)
class ScoredTask:
    """What the rules see of a task.

    Attributes:
        check: what the engine can do for the task's requests.
        model: the model as the engine describes it.
        result: the task's entry for ``results.json``.
    """

    config: EvalConfig
    plan: TaskPlan
    check: RequestCheck
    model: Mapping[str, Any]
    result: Mapping[str, Any]

    @property
    def has_protocol(self) -> bool:
        """Whether the task's settings are part of what its score means."""
        return self.plan.task.split == "test"


def list_caveats(scored: ScoredTask) -> list[Caveat]:
    """Return all caveats of a task's score, those of the data first."""
    return [caveat for rule in RULES for caveat in rule(scored)]


def _check_data(scored: ScoredTask) -> Iterator[Caveat]:
    data, counts = scored.plan.data, scored.result["counts"]
    yield from data.caveats
    yield from (Caveat("data_note", note) for note in data.notes)
    if data.bad_rows:
        yield Caveat(
            "bad_rows",
            f"{len(data.bad_rows)} rows of the data could not be read (reasons: data.bad_rows)",
        )
    if scored.plan.contaminated_ids:
        yield Caveat(
            "contaminated",
            f"{len(scored.plan.contaminated_ids)} of {counts['problems']} problems are in the "
            "training data",
        )


def _check_split(scored: ScoredTask) -> Iterator[Caveat]:
    if scored.plan.task.split == "validation":
        yield Caveat(
            "validation_split",
            "a validation split: checkpoints may be chosen on it, so its scores are no report",
        )
    elif scored.config.purpose == "choose":
        yield Caveat(
            "chosen_on_test",
            "CHOSEN ON A TEST SET: checkpoints are compared on a test split, so the score of the "
            "best one is biased upwards; choose on a validation split instead: mbpp_validation, or "
            "parquet with data.val_files",
        )


def _check_protocol(scored: ScoredTask) -> Iterator[Caveat]:
    if not scored.has_protocol:
        return
    task, options = scored.plan.task, scored.result["options"]
    changes = [
        f"{name}={value} (the task's: {task.options[name]})"
        for name, value in options.items()
        if value != task.options[name]
    ]
    if changes:
        yield Caveat("options", f"other options than the task's: {', '.join(changes)}")
    if is_preset_model(scored.config.model):
        return
    # n changes the interval, and the seed the draw, but neither what is estimated.
    own, used = dataclasses.asdict(task.sampling), dataclasses.asdict(scored.plan.sampling)
    changes = [
        f"{name} {used[name]} (the task's: {own[name]})"
        for name in ("temperature", "top_p", "top_k", "max_tokens")
        if used[name] != own[name]
    ]
    if changes:
        yield Caveat("sampling", f"other sampling than the task's: {', '.join(changes)}")


def _check_prompt(scored: ScoredTask) -> Iterator[Caveat]:
    config = scored.config
    if not scored.has_protocol or is_preset_model(config.model):
        return
    changes = {
        f"style {config.style}": config.style != "chat",
        "a system prompt": config.system is not None,
        "another chat template": config.engine.chat_template is not None,
        f"chat template arguments {config.engine.chat_template_kwargs}": bool(
            config.engine.chat_template_kwargs
        ),
    }
    if any(changes.values()):
        listed = ", ".join(text for text, holds in changes.items() if holds)
        yield Caveat("prompt", f"prompted otherwise than the task prompts: {listed}")


def _check_engine(scored: ScoredTask) -> Iterator[Caveat]:
    yield from scored.check.caveats
    config = scored.config
    if is_preset_model(config.model):
        yield Caveat(
            "preset_answers",
            f"the answers are preset ({config.model}): no model's weights are known to have "
            "generated them",
        )
        return
    if not scored.model["weights"]:
        yield Caveat(
            "unknown_weights", "the engine does not report the weights, so their hash is unknown"
        )
    if config.engine.rope_parameters:
        yield Caveat(
            "rope_scaling",
            f"the model's positions are scaled (engine.rope_parameters="
            f"{config.engine.rope_parameters})",
        )
    trained, used = config.engine.trained_length, scored.plan.sampling.max_tokens
    if trained and used > trained:
        yield Caveat(
            "trained_length",
            f"responses of up to {used} tokens, {used / trained:.3g} times the training's "
            f"{trained}",
        )


def _check_tier(scored: ScoredTask) -> Iterator[Caveat]:
    tiers = scored.result["tier"].split(", ")
    if "rlimits" in tiers:
        yield Caveat(
            "degraded_tier",
            "programs ran in the DEGRADED tier rlimits: resource limits only, no isolation",
        )
    if REMOTE_TIER in tiers:
        yield Caveat(
            "remote_tier",
            "programs ran on a remote server, whose speed is unknown: time limits may have failed "
            "correct programs, or passed slow ones",
        )


def _check_reward(scored: ScoredTask) -> Iterator[Caveat]:
    items = scored.plan.data.items
    calls = [item.reward for item in items if item.reward is not None]
    sources: dict[str, set[str]] = {}
    for call in calls:
        sources.setdefault(str(call.function), set()).add(call.data_source)
    if calls:
        listed = "; ".join(f"{name} for {', '.join(sorted(of))}" for name, of in sources.items())
        yield Caveat(
            "training_reward",
            f"{len(calls)} of {len(items)} problems are graded by a training's own reward, which "
            f"is no benchmark's: {listed}",
        )


def _check_answers(scored: ScoredTask) -> Iterator[Caveat]:
    if scored.config.model == "empty":  # empty answers are asked for
        return
    for text in describe_missing_answers(scored.result["answers"]):
        yield Caveat("no_answers", text)


def _check_samples(scored: ScoredTask) -> Iterator[Caveat]:
    result, counts = scored.result, scored.result["counts"]
    if counts["failed"]:
        yield Caveat(
            "incomplete",
            f"the generation of {counts['failed']} of {counts['expected']} samples failed "
            "(reasons: failures.jsonl); they are left out, and the next call repeats them",
        )
    if counts["infrastructure"]:
        yield Caveat(
            "incomplete",
            f"{counts['infrastructure']} samples could not be graded; they are left out, and the "
            "next call grades them again",
        )
    if result["problems_without_samples"]:
        yield Caveat(
            "incomplete",
            f"{result['problems_without_samples']} problems have no graded sample; the scores "
            "leave them out",
        )
    if counts["truncated"]:
        yield Caveat(
            "truncated",
            f"{counts['truncated']} of {counts['samples']} samples "
            f"({format_percent(counts['truncated'] / counts['samples'])}) were cut off at "
            f"{scored.plan.sampling.max_tokens} tokens",
        )


def _check_extras(scored: ScoredTask) -> Iterator[Caveat]:
    second = scored.result["refinement"]
    if scored.config.refine.n and second is None:
        counts = scored.result["counts"]
        yield Caveat(
            "second_round",
            "no second round: it needs all samples of the first, and some are missing; rerun the "
            "same command"
            if counts["failed"] or counts["infrastructure"]
            else "no second round: its votes need answers, and rewards of 0 and 1",
        )
    elif second and second["failed"] + second["infrastructure"]:
        yield Caveat(
            "second_round",
            f"{second['failed']} samples of the second round failed, {second['infrastructure']} "
            "could not be graded; they do not vote",
        )
    if scored.result["rating_missing"]:
        yield Caveat("no_rating", scored.result["rating_missing"])


RULES: tuple[Callable[[ScoredTask], Iterator[Caveat]], ...] = (
    _check_data,
    _check_split,
    _check_protocol,
    _check_prompt,
    _check_engine,
    _check_tier,
    _check_reward,
    _check_answers,
    _check_samples,
    _check_extras,
)
