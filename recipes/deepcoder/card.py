"""``python -m recipes.deepcoder.card RUN --evaluation FOLDER``: a model card that fills itself from
what a run left.

Invariants:
* Every figure is read from a file of the run, of its data or of an evaluation; what is not there is
  said to be missing.
* A score stands beside its interval, its number of samples and how they were drawn.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from recipes.deepcoder.stages.stage_config import REWARD, TRUNCATED_SHARE
from verl_pipeline.evaluation.errors import Refused
from verl_pipeline.evaluation.results import read_results
from verl_pipeline.evaluation.store import write_text
from verl_pipeline.machine import read_package_versions

TEMPLATE = Path(__file__).with_name("card.md.jinja")
MODEL = "actor_rollout_ref.model.path"
# Of a stage's settings, what a reader of a card looks for.
SHOWN = {
    "response_length": "data.max_response_length",
    "batch": "data.train_batch_size",
    "mini_batch": "actor_rollout_ref.actor.ppo_mini_batch_size",
    "samples": "actor_rollout_ref.rollout.n",
    "temperature": "actor_rollout_ref.rollout.temperature",
    "learning_rate": "actor_rollout_ref.actor.optim.lr",
    "variant": "grpo_plus",
}


class NoRun(Refused):
    """A folder that is no run, data or evaluation of this recipe."""


def card(
    run: Path, data: Path, evaluations: list[Path], name: str, base_model: str | None = None
) -> ModelCard:
    """The card of the model that ``run`` has trained.

    Args:
        run: folder of ``recipes.deepcoder.train``.
        data: folder of ``recipes.deepcoder.prepare``.
        evaluations: folders of ``verl-pipeline eval`` of the trained model.
        name: of the model.
        base_model: hub name of the model it began with; by default what the run was given.

    Raises:
        NoRun: a folder does not have what it should.
    """
    state = _json(run / "stages.json", "no run of recipes.deepcoder.train")
    stages = [_stage(run, stage, record) for stage, record in state["stages"].items()]
    report = _json(data / "report.json", "no data of recipes.deepcoder.prepare")
    scores = [score for folder in evaluations for score in _scores(folder)]
    base = base_model or str(state["identity"][MODEL])
    header = ModelCardData(
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
                metric_value=round(100 * score["pass@1"]["value"], 2),
            )
            for score in scores
            if score["pass@1"]
        ]
        or None,
    )
    return ModelCard.from_template(
        header,
        template_path=str(TEMPLATE),
        name=name,
        base=base,
        stages=stages,
        unfinished=[stage["name"] for stage in stages if stage["ended_at"] is None],
        sources=_sources(report),
        removed_by=report["stages"],
        contamination=sorted(report["evaluations"]),
        data_warnings=report["warnings"],
        scores=scores,
        versions=read_package_versions(),
    )


def _json(path: Path, else_: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise NoRun(f"{path} is not there: {path.parent} is {else_}") from error
    except ValueError as error:
        raise NoRun(f"{path}: no JSON: {error}") from error


def _stage(run: Path, name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    settings = record["settings"]
    metrics = [json.loads(line)["data"] for line in _lines(run / name / "metrics.jsonl")]
    trained = [step for step in metrics if REWARD in step]
    return {
        "name": name,
        "first_step": record["first_step"],
        "ended_at": record["ended_at"],
        "why": record["why"],
        "attempts": len(record["attempts"]),
        "reward": _ends([step[REWARD] for step in trained]),
        "truncated": _ends([step[TRUNCATED_SHARE] for step in trained]),
        "skipped": int(sum(step.get("filters/skipped_update", 0) for step in metrics)),
        **{key: settings.get(field, "default") for key, field in SHOWN.items()},
    }


def _ends(values: list[float]) -> tuple[float, float] | None:
    return (values[0], values[-1]) if values else None


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _sources(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "rows": source["rows"],
            "left": source["left"],
            "removed": {stage: steps["went"] for stage, steps in source["stages"].items()},
            "origin": source.get("origin", ""),
        }
        for name, source in report["sources"].items()
    ]


def _scores(folder: Path) -> list[dict[str, Any]]:
    results = read_results(folder)
    return [
        {
            "task": task["task"],
            "title": task["title"],
            "pass@1": task["pass@1"],
            "problems": task["data"]["problems"],
            "samples": task["counts"]["samples"],
            "truncated": task["counts"]["truncated"],
            "sampling": task["sampling"],
            "published": task["published"],
            "warnings": results["warnings"],
        }
        for task in results["tasks"]
    ]


def main(
    run: Annotated[Path, typer.Argument(help="Folder of recipes.deepcoder.train.")],
    data: Annotated[Path, typer.Option(help="Folder of recipes.deepcoder.prepare.")] = Path(
        "outputs/deepcoder-data"
    ),
    evaluation: Annotated[
        list[Path] | None, typer.Option(help="Folder of verl-pipeline eval; may be repeated.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name; by default the run's.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="Hub name of the model it began with.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="By default RUN/README.md.")] = None,
) -> None:
    """Write a model card from what a run, its data and its evaluations left."""
    try:
        made = card(run, data, evaluation or [], name or run.resolve().name, base_model)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    target = output or run / "README.md"
    write_text(target, str(made))
    print(f"written: {target}")


if __name__ == "__main__":
    typer.run(main)
