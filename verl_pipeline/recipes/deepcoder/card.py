"""Writes a model card from the files of a run, its data and its evaluations.

    python -m verl_pipeline.recipes.deepcoder.card RUN --evaluation FOLDER

Invariants:
* Every number is read from a file of the run, its data or an evaluation; a missing one is named.
* A score is accompanied by its interval, its number of samples, its sampling parameters and its
  caveats.
* The hub's ``model-index`` has only scores of this model on whole benchmarks: none with a caveat
  that bars. The card says why a score is left out.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from pydantic import TypeAdapter

from verl_pipeline.errors import UserError, show_line
from verl_pipeline.evaluation.engines.model_folder import hash_weights
from verl_pipeline.evaluation.recorded_files import check_shape, read_record, read_records
from verl_pipeline.evaluation.score_tables import format_main_score
from verl_pipeline.machine import read_package_versions
from verl_pipeline.number_formats import format_decimal, format_percent, to_percent
from verl_pipeline.outputs.files import refuse_foreign_text, write_text
from verl_pipeline.path_options import path_argument, path_option
from verl_pipeline.recipes.deepcoder.card_inputs import METRICS, REPORT, STATE
from verl_pipeline.recipes.deepcoder.card_scores import read_scores
from verl_pipeline.recipes.deepcoder.hub_folder import (
    has_weights,
    make_upload_command,
    write_hub_folder,
)
from verl_pipeline.recipes.deepcoder.stages.stage_config import (
    REWARD_METRIC,
    TRUNCATED_SHARE_METRIC,
)
from verl_pipeline.standard_streams import guard_streams
from verl_pipeline.verl_adapter.checkpointing.checkpoint_layout import get_step_folder

TEMPLATE = Path(__file__).with_name("card.md.jinja")
# A sentence of the template by which a card is known.
CARD_MARK = "This card was generated from the files of the run."
MODEL_KEY = "actor_rollout_ref.model.path"
# Settings of a stage that the card shows, by their name in the template.
SHOWN_SETTINGS = {
    "response_length": "data.max_response_length",
    "batch": "data.train_batch_size",
    "mini_batch": "actor_rollout_ref.actor.ppo_mini_batch_size",
    "samples": "actor_rollout_ref.rollout.n",
    "temperature": "actor_rollout_ref.rollout.temperature",
    "learning_rate": "actor_rollout_ref.actor.optim.lr",
    "variant": "grpo_plus",
}


class CardInputError(UserError):
    """A folder is not a run, data or evaluation of this recipe."""


def build_card(
    run: Path,
    data: Path,
    evaluations: list[Path],
    name: str,
    base_model: str | None = None,
    model: Path | None = None,
) -> ModelCard:
    """Build the card of the model that ``run`` has trained.

    Args:
        run: folder of ``verl_pipeline.recipes.deepcoder.train``.
        data: folder of ``verl_pipeline.recipes.deepcoder.prepare``.
        evaluations: folders of ``verl-pipeline eval`` of the trained model.
        name: name of the model.
        base_model: hub name of the initial model; by default the model that the run was given.
        model: folder of the model that the card is for, in Hugging Face's format; by default the
            one in the last checkpoint of the run's last stage.

    Raises:
        CardInputError: a folder lacks a file.
        ResultsError: a folder has no results of an evaluation.
        DamagedFileError: a file is not as its command has written it.
    """
    state = _read_state(run)
    stages = [_summarize_stage(run, stage, record) for stage, record in state["stages"].items()]
    report = _read_json(
        data / "report.json", REPORT, "verl_pipeline.recipes.deepcoder.prepare", "--data"
    )
    folder = model or find_trained_model(run)
    weights = hash_weights(folder) if evaluations and folder and has_weights(folder) else None
    scores = [score for one in evaluations for score in read_scores(one, weights)]
    base = base_model or _read_model_name(state, run / "stages.json")
    header = ModelCardData(
        # A local folder is not a name that the hub could link to.
        base_model=base if base_model or not Path(base).is_absolute() else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["code", "reinforcement-learning", "grpo", "verl-pipeline"],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_type=score["task"],
                dataset_name=score["title"],
                metric_type="pass@1",
                metric_value=to_percent(score["pass@1"]["value"]),
                metric_args=score["sampling"],
            )
            for score in scores
            if score["pass@1"] and not score["barring"]
        ]
        or None,
    )
    return ModelCard.from_template(
        header,
        template_path=str(TEMPLATE),
        name=name,
        base=base,
        stages=stages,
        unfinished_stages=[stage["name"] for stage in stages if stage["end_step"] is None],
        sources=_summarize_sources(report),
        preparation_stages=report["stages"],
        evaluation_tasks=sorted(report["evaluations"]),
        data_warnings=report["warnings"],
        scores=scores,
        versions=read_package_versions(),
        format_main_score=format_main_score,
        format_percent=format_percent,
        format_decimal=format_decimal,
    )


def _read_state(run: Path) -> dict[str, Any]:
    return _read_json(run / "stages.json", STATE, "verl_pipeline.recipes.deepcoder.train", "RUN")


def _read_json(path: Path, shape: TypeAdapter, command: str, option: str) -> dict[str, Any]:
    if not os.path.exists(path):
        raise CardInputError(
            f"{path} does not exist: {path.parent} was not written by {command}; name its output "
            f"folder with {option}"
        )
    content = read_record(path, advice := f"run {command} again")
    check_shape(content, shape, str(path), advice)
    return content


def _read_model_name(state: Mapping[str, Any], path: Path) -> str:
    name = state["identity"].get(MODEL_KEY)
    if not isinstance(name, str):
        raise CardInputError(
            f"{path}: identity.{MODEL_KEY}: must be the name of the initial model; give it with "
            "--base-model"
        )
    return name


def _summarize_stage(run: Path, name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    overrides = record["settings"]
    rows = read_records(run / name / "metrics.jsonl", METRICS, "rerun the training's command")
    metrics = [row["data"] for row in rows]
    return {
        "name": name,
        "first_step": record["first_step"],
        "end_step": record["ended_at"],
        "end_reason": record["why"],
        "reward": _take_ends(metrics, REWARD_METRIC),
        "truncated": _take_ends(metrics, TRUNCATED_SHARE_METRIC),
        "skipped_updates": int(sum(step.get("filters/skipped_update", 0) for step in metrics)),
        **{field: overrides.get(key, "default") for field, key in SHOWN_SETTINGS.items()},
    }


def _take_ends(metrics: Sequence[Mapping[str, float]], name: str) -> tuple[float, float] | None:
    """Return the first and the last value of a metric, or None if there are none."""
    values = [step[name] for step in metrics if name in step]
    return (values[0], values[-1]) if values else None


def _summarize_sources(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "rows": source["rows"],
            "left": source["left"],
            "removed": {stage: counts["went"] for stage, counts in source["stages"].items()},
            "origin": source.get("origin", ""),
        }
        for name, source in report["sources"].items()
    ]


def find_trained_model(run: Path) -> Path | None:
    """Return where the last checkpoint of the last stage that has ended may hold a whole model."""
    state = _read_state(run)
    folders = [
        get_step_folder(run / name / "checkpoints", record["ended_at"]) / "actor" / "huggingface"
        for name, record in state["stages"].items()
        if record["ended_at"] is not None
    ]
    return folders[-1] if folders else None


def main(
    run: Annotated[
        Path, path_argument(help="Output folder of verl_pipeline.recipes.deepcoder.train.")
    ],
    data: Annotated[
        Path, path_option(help="Output folder of verl_pipeline.recipes.deepcoder.prepare.")
    ] = Path("outputs/deepcoder-data"),
    evaluation: Annotated[
        list[Path] | None,
        path_option(help="Output folder of verl-pipeline eval; may be repeated."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model; by default the run's.")
    ] = None,
    base_model: Annotated[str | None, typer.Option(help="Hub name of the initial model.")] = None,
    model: Annotated[
        Path | None,
        path_option(help="Folder of the published model; by default the last checkpoint's."),
    ] = None,
    output: Annotated[Path | None, path_option(help="By default RUN/README.md.")] = None,
    hub_folder: Annotated[
        Path | None,
        path_option(help="Also write a folder for a hub: model, card, configuration, results."),
    ] = None,
) -> None:
    """Write a model card from the files of a run, its data and its evaluations."""
    target = output or run / "README.md"
    try:
        refuse_foreign_text(target, CARD_MARK, "a card of verl_pipeline.recipes.deepcoder.card")
        if model is not None and not has_weights(model):
            raise CardInputError(
                f"--model {model}: no *.safetensors in it; name the folder of a model in Hugging "
                "Face's format"
            )
        title = name or run.resolve().name
        card = build_card(run, data, evaluation or [], title, base_model, model)
        write_text(target, str(card))
        if hub_folder is not None:
            whole = model or find_trained_model(run)
            write_hub_folder(hub_folder, str(card), run, data, whole, evaluation or [])
    except UserError as error:
        print(f"error: {show_line(str(error))}", file=sys.stderr)
        raise typer.Exit(2) from error
    print(show_line(f"written: {target}"))
    if hub_folder is not None:
        print(show_line(f"written: {hub_folder}; to push it: "), end="")
        print(make_upload_command(hub_folder, title))


if __name__ == "__main__":
    with guard_streams():
        typer.run(main)
