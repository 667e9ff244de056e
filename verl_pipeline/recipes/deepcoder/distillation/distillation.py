"""Distils in order: evaluation before, teacher's answers (``sft``), training, evaluation after.

    OUTPUT/settings.json     the settings that decide the result
    OUTPUT/before, after     evaluations of the student on the held-out problems; their settings
                             stand in before.yaml and after.yaml
    OUTPUT/teacher           the teacher's graded answers (sft)
    OUTPUT/sft.parquet       the chosen answers, as conversations (sft)
    OUTPUT/training          checkpoints, log, metrics
    OUTPUT/report.json       counts, tokens, and the paired gain

Invariants:
* What is finished is not repeated: evaluations resume by sample, the training by checkpoint.
* A folder holds one distillation: other settings that decide the result are refused, by name.
* The student's evaluations before and after differ in nothing but the weights.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from verl_pipeline.evaluation.comparison import compare_folders
from verl_pipeline.evaluation.differences import list_differences
from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.outputs.files import write_json
from verl_pipeline.outputs.folders import FolderKind, claim_output
from verl_pipeline.recipes.deepcoder.distillation.answer_selection import select_answers
from verl_pipeline.recipes.deepcoder.distillation.distill_config import DistillConfig
from verl_pipeline.recipes.deepcoder.distillation.evaluation_process import evaluate
from verl_pipeline.recipes.deepcoder.distillation.sft_data import read_prompts, write_sft_rows
from verl_pipeline.recipes.deepcoder.distillation.teacher_answers import (
    build_evaluation,
    collect_answers,
)
from verl_pipeline.recipes.deepcoder.distillation.training_commands import (
    build_on_policy_command,
    build_sft_command,
    find_model,
    read_reached_step,
    set_ended_data_aside,
)
from verl_pipeline.recipes.deepcoder.distillation.training_run import (
    METRICS,
    TrainingFailed,
    run_training,
)

DISTILLATION = FolderKind(
    "verl_pipeline.recipes.deepcoder.distill",
    landmarks=("settings.json",),
    written=("settings.json", "sft.parquet", "report.json", "*.yaml"),
)
# Where a run is and how fast it goes decides nothing.
_FREE = ("output", "grader", "device")
_FREE_OF_ENGINES = ("url", "concurrency", "timeout_s", "tries", "threads", "gpu_memory_utilization")


def run_distillation(config: DistillConfig, student: str, console: Console) -> dict[str, Any]:
    """Distil, or go on where an earlier call stopped.

    Args:
        student: folder or hub name of the student.

    Returns:
        The content of ``report.json``.

    Raises:
        UserError: a setting, a model, the data or the folder cannot be used.
        TrainingFailed: the training ended with an error.
    """
    if config.method == "on_policy":
        # Imported here: it imports verl, which takes seconds.
        from verl_pipeline.verl_adapter.checks.teacher_checks import check_same_tokenizer

        check_same_tokenizer(student, config.teacher.model)
    output = Path(config.output).resolve()
    with claim_output(output, DISTILLATION, {"data": Path(config.data)}):
        _claim_settings(output / "settings.json", config, student)
        _evaluate(config, student, output / "before", console)
        report: dict[str, Any] = {"method": config.method, "student": student}
        if config.method == "sft":
            report |= _train_sft(config, student, output, console)
        else:
            report |= _train_on_policy(config, student, output, console)
        _evaluate(config, report["model"], output / "after", console)
        [report["gain"]] = compare_folders(output / "before", output / "after")
        write_json(output / "report.json", report)
    return report


def _claim_settings(path: Path, config: DistillConfig, student: str) -> None:
    content = {name: value for name, value in asdict(config).items() if name not in _FREE}
    for section in ("teacher", "score"):
        for name in _FREE_OF_ENGINES:
            del content[section]["engine"][name]
    content = json.loads(json.dumps(content | {"student": student}))
    if path.exists():
        differences = list_differences(json.loads(path.read_text()), content, ("there", "now"))
        if differences:
            raise BadSetting(
                f"{path.parent} holds another distillation ({'; '.join(differences)}): choose "
                "another output, or remove that folder"
            )
    write_json(path, content)


def _evaluate(config: DistillConfig, model: str, folder: Path, console: Console) -> None:
    file = Path(config.data) / "heldout.parquet"
    console.print(f"{folder.name}: evaluating {model}", markup=False, highlight=False)
    evaluate(build_evaluation(config, model, file, folder, is_teacher=False), console)


def _train_sft(
    config: DistillConfig, student: str, output: Path, console: Console
) -> dict[str, Any]:
    found = collect_answers(config, output, console)
    chosen = select_answers(found.right, config.selection)
    epoch = len(chosen) // config.sft.batch_size
    updates = epoch * config.sft.epochs
    counts = found.counts | {"chosen": len(chosen)}
    console.print(", ".join(f"{value} {name}" for name, value in counts.items()), highlight=False)
    if not updates:
        raise BadSetting(
            f"sft.batch_size={config.sft.batch_size}: the teacher gave {len(chosen)} right answers "
            f"that differ, of {counts['answers']}; raise teacher.k or lower the batch size"
        )
    rows = output / "sft.parquet"
    write_sft_rows(chosen, read_prompts(Path(config.data) / "train.parquet", config.source), rows)
    folder = output / "training"
    command = build_sft_command(config, student, rows, folder)
    set_ended_data_aside(folder, read_reached_step(folder), epoch)
    model = _train(config, command, folder, updates, console)
    return {"teacher": found.model, "answers": counts, "updates": updates, "model": model}


def _train_on_policy(
    config: DistillConfig, student: str, output: Path, console: Console
) -> dict[str, Any]:
    steps, folder = config.on_policy.steps, output / "training"
    model = _train(config, build_on_policy_command(config, student, folder), folder, steps, console)
    return {
        "teacher": {"name": config.teacher.model},
        "updates": steps,
        "tokens": count_generated_tokens(folder / METRICS),
        "model": model,
    }


def _train(
    config: DistillConfig, command: list[str], folder: Path, steps: int, console: Console
) -> str:
    """Train up to ``steps`` unless that is done; return the folder of the model."""
    reached = read_reached_step(folder)
    if reached < steps:
        begin = f" from update {reached}" if reached else ""
        console.print(
            f"training to update {steps}{begin}; log: {folder / 'train.log'}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        is_ours = config.method == "on_policy"
        run_training(command, folder, _list_variables(config), continues_metrics=is_ours)
        if (reached := read_reached_step(folder)) < steps:
            raise TrainingFailed(
                f"the training ended after update {reached} of {steps}, without an error; its log: "
                f"{folder / 'train.log'}"
            )
    return str(find_model(config, folder, steps))


def _list_variables(config: DistillConfig) -> dict[str, str]:
    if config.device != "cpu":
        return {}
    # One thread a rank: threads that wait for each other stand still on a machine that others use.
    own = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    return {"VERL_PLATFORM": "cpu", "TOKENIZERS_PARALLELISM": "false"} | own


def count_generated_tokens(metrics: Path) -> int:
    """Return the tokens that the student generated for its updates, from verl's file logger.

    A resumed run repeats steps: the last record of a step counts.
    """
    records = [json.loads(line) for line in metrics.read_text().split("\n") if line]
    steps = {record["step"]: record["data"] for record in records}
    key = "response_length/mean"
    trajectories = "filters/before/trajectories"
    return round(sum(data[key] * data[trajectories] for data in steps.values() if key in data))
