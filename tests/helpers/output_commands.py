"""Every command that writes, with inputs of its own, for the tests of outputs.

Invariant: all of them write to ``--output`` only.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from benchmarks import grading as grading_benchmark
from benchmarks import pipeline as pipeline_benchmark
from tests.helpers.problem_mixture import make_mixture
from verl_pipeline import cli
from verl_pipeline.outputs.files import write_json, write_lines
from verl_pipeline.quickstart import __main__ as quickstart
from verl_pipeline.recipes.deepcoder import ablation, card, demo, generate, prepare, train
from verl_pipeline.testing.tiny_run import write_model

PROBLEM = {
    "id": 1,
    "source": "taco",
    "tests": {"inputs": ["1 2\n"], "outputs": ["3\n"]},
    "time_s": 5.0,
}
PROGRAM = "print(sum(map(int, input().split())))"
TASK = "tests.helpers.small_task"


@dataclass(frozen=True)
class WritingCommand:
    """A command that writes.

    Attributes:
        module: its module, for ``python -m``.
        app: the same, to be called in this process.
        writes_folder: whether its output is a folder.
        list_arguments: makes its inputs below a folder; returns its arguments but for the output.
        input: one of these inputs, of the kind of its output.
    """

    module: str
    app: Any
    writes_folder: bool
    list_arguments: Callable[[Path], list[str]]
    input: str


def _make_app(main: Callable[..., None]) -> typer.Typer:
    app = typer.Typer(add_completion=False)
    app.command()(main)
    return app


def _grade(folder: Path, programs: int = 3) -> list[str]:
    write_lines(folder / "p.jsonl", [PROBLEM])
    rows = [{"id": 1, "program": f"{PROGRAM}  # {number}"} for number in range(programs)]
    write_lines(folder / "s.jsonl", rows)
    return ["grade", str(folder / "p.jsonl"), str(folder / "s.jsonl"), "--workers", "1"]


def _grade_many(folder: Path) -> list[str]:
    return [*_grade(folder, 60), "--tier", "rlimits"]


def _evaluate(folder: Path) -> list[str]:
    answers = [
        {"id": name, "response": "r" * 4000}
        for name in ("double", "again", "f", "number")
        for _sample in range(4)
    ]
    write_lines(folder / "answers.jsonl", answers)
    settings = ["--tasks", TASK, "--n", "1", "options.small.programs=false"]
    return ["eval", "--model", str(folder / "answers.jsonl"), *settings]


def _watch(folder: Path) -> list[str]:
    (folder / "checkpoints/global_step_1/actor").mkdir(parents=True)
    return ["eval-watch", str(folder / "checkpoints"), "--tasks", TASK, "--idle-s", "1"]


def _prepare(folder: Path) -> list[str]:
    data = make_mixture(0, clean=8).write_files(folder / "data")
    model = write_model(folder / "model")
    return [
        "sources={taco: {}, primeintellect: {}}",
        "length.max_tokens=6000",
        "contamination.tasks=[humaneval]",
        "verify.without_solution=keep",
        "difficulty.mode=given",
        f"difficulty.rates={data / 'rates.jsonl'}",
        f"model={model}",
        "hub=false",
        "--data",
        str(data),
    ]


def _generate(folder: Path) -> list[str]:
    (folder / "data").mkdir()
    write_lines(folder / "data/codeio.jsonl", [{"task_description": "no program"}])
    return ["methods=[codeio]", "hub=false", "--data", str(folder / "data")]


def _train(folder: Path) -> list[str]:
    (folder / "prepared").mkdir()
    (folder / "prepared/train.parquet").write_bytes(b"PAR1")
    return ["--hardware", "cpu", "--dry-run", "--data", str(folder / "prepared")]


def _write_card(folder: Path) -> list[str]:
    run, data = folder / "run", folder / "prepared"
    write_json(
        run / "stages.json",
        {"identity": {"actor_rollout_ref.model.path": "org/base"}, "stages": {}},
    )
    report = {"sources": {}, "stages": [], "evaluations": {}, "warnings": []}
    write_json(data / "report.json", report)
    return [str(run), "--data", str(data)]


def _take_data(folder: Path) -> list[str]:
    (folder / "data").mkdir()
    (folder / "data/taco.jsonl").write_text(json.dumps(PROBLEM) + "\n")
    return ["--data", str(folder / "data")]


COMMANDS = {
    "grade": WritingCommand("verl_pipeline.cli", cli.app, False, _grade, "p.jsonl"),
    "eval": WritingCommand("verl_pipeline.cli", cli.app, True, _evaluate, "."),
    "eval-watch": WritingCommand("verl_pipeline.cli", cli.app, True, _watch, "checkpoints"),
    "prepare": WritingCommand(prepare.__name__, _make_app(prepare.main), True, _prepare, "data"),
    "generate": WritingCommand(
        generate.__name__, _make_app(generate.main), True, _generate, "data"
    ),
    "train": WritingCommand(train.__name__, _make_app(train.main), True, _train, "prepared"),
    "card": WritingCommand(
        card.__name__, _make_app(card.main), False, _write_card, "run/stages.json"
    ),
    "demo": WritingCommand(demo.__name__, _make_app(demo.main), True, _take_data, "data"),
    "ablation": WritingCommand(
        ablation.__name__, _make_app(ablation.main), True, _take_data, "data"
    ),
    "pipeline benchmark": WritingCommand(
        pipeline_benchmark.__name__, _make_app(pipeline_benchmark.main), True, lambda _: [], ""
    ),
    "benchmark": WritingCommand(
        grading_benchmark.__name__, _make_app(grading_benchmark.main), False, lambda _: [], ""
    ),
}
QUICKSTART = WritingCommand(
    quickstart.__name__.removesuffix(".__main__"),
    _make_app(quickstart.main),
    True,
    lambda _: [],
    "",
)
# Commands with enough output to fill a small disk.
FILLING = {
    "grade": WritingCommand("verl_pipeline.cli", cli.app, False, _grade_many, ""),
    "eval": COMMANDS["eval"],
    "prepare": COMMANDS["prepare"],
    "card": COMMANDS["card"],
}
