"""Runs an evaluation from its settings to ``results.json``.

Invariants:
* Every error of the user is reported before the model is loaded.
* One process at a time works in an output folder; finished work is not repeated.
"""

import contextlib
import dataclasses
import datetime
import os
from pathlib import Path
from typing import Any

from rich.console import Console

from verl_pipeline.evaluation import results, second_round
from verl_pipeline.evaluation.answer_methods import load_scorer
from verl_pipeline.evaluation.caveat_rules import ScoredTask, list_caveats
from verl_pipeline.evaluation.engines import Engine, RequestCheck
from verl_pipeline.evaluation.engines.preset_engine import PresetEngine
from verl_pipeline.evaluation.eval_settings import EvalConfig, is_preset_model
from verl_pipeline.evaluation.graders import Grader
from verl_pipeline.evaluation.recorded_files import read_records
from verl_pipeline.evaluation.score_tables import print_line
from verl_pipeline.evaluation.store import EVALUATION, claim_folder
from verl_pipeline.evaluation.task_plan import TaskPlan, plan_tasks
from verl_pipeline.evaluation.task_run import TaskRunner
from verl_pipeline.machine import describe_machine, read_package_versions
from verl_pipeline.outputs.files import JsonLinesFile, write_json
from verl_pipeline.outputs.folders import check_output, claim_output


def run_evaluation(
    config: EvalConfig, console: Console, engine: Engine | None = None
) -> dict[str, Any]:
    """Start or resume an evaluation.

    Args:
        engine: generates the responses; None: the engine that ``config`` names.

    Returns:
        The content of ``results.json``.

    Raises:
        UserError: settings, data, model or output folder cannot be used; stored samples are kept.
        SandboxError: programs cannot be isolated on this machine.
    """
    output, inputs = Path(config.output), _list_inputs(config)
    check_output(output, EVALUATION, inputs)
    if engine is None and is_preset_model(config.model):
        engine = make_engine(config)  # a wrong file of answers is named before data are read
    finder, plans = plan_tasks(config)
    scorer = load_scorer(config.scorer)
    with (
        claim_output(output, EVALUATION, inputs),
        contextlib.closing(Grader(config.grader)) as grader,
        contextlib.closing(engine or make_engine(config)) as engine,
    ):
        if any(item.problem for plan in plans for item in plan.data.items):
            grader.check_sandbox()
        extra_tokens = second_round.EXTRA_PROMPT_TOKENS if config.refine.n else 0
        checks: list[RequestCheck] = []
        for plan in plans:
            # All samples of a problem share its prompt: every n-th request covers every prompt.
            first_requests = plan.make_requests(config.style)[:: plan.sampling.n]
            checks.append(engine.check_requests(first_requests, plan.sampling, extra_tokens))
        for text in dict.fromkeys(caveat.text for check in checks for caveat in check.caveats):
            print_line(console, text, "yellow")
        model = engine.describe_model()
        _claim_output(config, plans, engine, model, checks)
        calls = _record_call(output)
        runner = TaskRunner(config, finder, engine, grader, scorer, console)
        tasks = [runner.run_task(plan) for plan in plans]
        for plan, check, result in zip(plans, checks, tasks, strict=True):
            scored = ScoredTask(config, plan, check, model, result)
            result["caveats"] = [caveat.as_dict() for caveat in list_caveats(scored)]
        content = {
            "schema": results.SCHEMA_VERSION,
            "model": model,
            "engine": {
                **engine.describe_settings(),
                "url": config.engine.url,
                "trained_length": config.engine.trained_length,
            },
            "purpose": config.purpose,
            "seed": plans[0].sampling.seed,
            **calls[-1],
            "started": calls[0]["started"],
            "finished": _format_now(),
            "calls": len(calls),
            "tasks": tasks,
        }
        write_json(output / "results.json", content)
    return content


def _list_inputs(config: EvalConfig) -> dict[str, Path]:
    """Return what the evaluation may read, by setting; a hub name stands for no file."""
    settings: dict[str, Any] = {
        "model": config.model,
        "data": config.data,
        "train_data": config.train_data,
        "engine.chat_template": config.engine.chat_template,
        **{
            f"options.{task}.{name}": value
            for task, options in config.options.items()
            for name, value in options.items()
        },
    }
    return {
        # Unlike Path.expanduser, this leaves ~ with an unknown user as it is.
        name: Path(os.path.expanduser(entry))
        for name, value in settings.items()
        for entry in (value if isinstance(value, list) else [value])
        if isinstance(entry, str)
    }


def make_engine(config: EvalConfig) -> Engine:
    """Return the engine that ``config`` names; it inspects the model but does not load it."""
    if is_preset_model(config.model):
        return PresetEngine(config.model)
    if config.engine.kind == "server":
        from verl_pipeline.evaluation.engines.server_engine import ServerEngine

        return ServerEngine(config.model, config.engine)
    from verl_pipeline.evaluation.engines.vllm_engine import VllmEngine

    return VllmEngine(config.model, config.engine)


def _claim_output(
    config: EvalConfig,
    plans: list[TaskPlan],
    engine: Engine,
    model: dict[str, Any],
    checks: list[RequestCheck],
) -> None:
    """Claim the output folder for the model and the settings of all tasks, before any sample."""
    output = Path(config.output)
    # If the hash of the weights is known, the model's name does not matter.
    identity = {key: value for key, value in model.items() if key != "name" or not model["weights"]}
    task_folders = [folder for folder in output.iterdir() if folder.is_dir()]
    explanation = {} if "name" in identity else {"model": model["name"]}
    claim_folder(output / "model.json", identity, task_folders, explanation)
    for plan, check in zip(plans, checks, strict=True):
        folder = output / plan.task.name
        # n is left out: an evaluation may be continued with more samples.
        sampling = {
            key: value for key, value in dataclasses.asdict(plan.sampling).items() if key != "n"
        }
        settings = {
            "data": plan.data.digest,
            "options": results.merge_options(config, plan.task),
            "style": config.style,
            "engine": engine.describe_settings(),
            "sampling": sampling,
        }
        if check.left_out:
            settings["left_out"] = sorted(check.left_out)
        # What the digest of the data follows from, besides the options.
        explanation = {
            "limit": config.limit,
            "problems": len(plan.data.items),
            "system": config.system,
            "origin": plan.data.origin,
        }
        claim_folder(folder / "settings.json", settings, [folder], explanation)


def _record_call(output: Path) -> list[dict[str, Any]]:
    """Append this call's start, versions and machine to ``calls.jsonl``; return all calls."""
    path = output / "calls.jsonl"
    with contextlib.closing(JsonLinesFile(path)) as calls:
        calls.append_row(
            {
                "started": _format_now(),
                "versions": read_package_versions(),
                "machine": describe_machine(),
            }
        )
    return list(read_records(path))


def _format_now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
