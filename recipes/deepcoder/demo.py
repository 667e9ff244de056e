"""``python -m recipes.deepcoder.demo --data FOLDER``: the whole recipe scaled down, on this
machine, with real engines.

Data is prepared, a model of 135M parameters is trained in two stages of growing context, and the
model before training and after each stage is evaluated on problems held out from training.

    OUTPUT/data                 what prepare wrote
    OUTPUT/base                 evaluation of the model before training
    OUTPUT/<arm>                stages of a training; <arm>/eval/<stage> their evaluations
    OUTPUT/report.json, .md     truncated share and score of each stage, with intervals

Invariants:
* Every number of the report is read from what a run left behind; nothing is chosen or left out.
* The same command goes on where an earlier one stopped.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from recipes.deepcoder.demo_report import markdown, rows_of, write_report
from recipes.deepcoder.stages.stage_config import STAGES, load_hardware, load_runs, run_of
from verl_pipeline.evaluation.errors import Refused
from verl_pipeline.evaluation.watch import Watch, evaluate_step
from verl_pipeline.processes import end_with_parent, raise_on_signals
from verl_pipeline.quickstart.model import prepare_model

HARDWARE = "cpu"
OUTPUT = Path("outputs/deepcoder-demo")
SettingsArgument = Annotated[list[str] | None, typer.Argument(help="Further settings of prepare.")]
DataOption = Annotated[Path | None, typer.Option(help="Folder of local data files.")]
OutputOption = Annotated[Path, typer.Option(help="Folder of everything.")]
SamplesOption = Annotated[int, typer.Option(min=2, help="Responses to each held-out problem.")]


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        samples: responses to each held-out problem.
        max_tokens: of each; the last stage's limit, so that all models are asked the same.
    """

    samples: int = 8
    max_tokens: int = 128


class StepFailed(Exception):
    """A command of the recipe ended with an error, which it has shown."""

    def __init__(self, code: int):
        self.code = code


def run_command(module: str, *arguments: str) -> None:
    """Run ``python -m module arguments`` with its output on ours; it ends with us, by SIGTERM.

    Raises:
        StepFailed: it ended with another code than 0.
    """
    # In a session of its own, so that Ctrl-C reaches it once, through us.
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    if code:
        raise StepFailed(code)


def prepare_data(output: Path, local: Path | None, settings: list[str]) -> Path:
    """The folder of prepared data."""
    data = output / "data"
    named = ["--data", str(local)] if local else []
    run_command(
        "recipes.deepcoder.prepare", "--config", "cpu", "--output", str(data), *named, *settings
    )
    return data


def evaluate_base(output: Path, sizes: Sizes) -> Path:
    """Evaluate the model before training; the evaluation's folder."""
    folder = output / "base"
    settings = _evaluation(output / "data", sizes)
    run_command(
        "verl_pipeline.cli",
        "eval",
        "--model",
        str(prepare_model()),
        "--output",
        str(folder),
        *settings,
    )
    return folder


def train_arm(
    output: Path, arm: str, sizes: Sizes, overrides: list[str], console: Console
) -> dict[str, Path]:
    """Train all stages below ``output/arm`` and evaluate the end of each; the evaluations' folders
    by stage.
    """
    folder = output / arm
    run_command(
        "recipes.deepcoder.train",
        *(
            "--hardware",
            HARDWARE,
            "--data",
            str(output / "data"),
            "--output",
            str(folder),
            *overrides,
        ),
    )
    stages = json.loads((folder / "stages.json").read_text())["stages"]
    evaluations = {}
    for name, stage in stages.items():
        watch = Watch(
            folder / name / "checkpoints",
            folder / "eval" / name,
            _evaluation(output / "data", sizes),
        )
        evaluations[name] = watch.output / f"step_{stage['ended_at']}"
        if not (evaluations[name] / "results.json").is_file():
            evaluate_step(watch, stage["ended_at"], console)
    return evaluations


def _evaluation(data: Path, sizes: Sizes) -> list[str]:
    """Settings of ``verl-pipeline eval``: the held-out problems, asked and sampled as in training."""
    return [
        "tasks=[parquet]",
        f"options.parquet.file={(data / 'heldout.parquet').resolve()}",
        f"train_data=[{(data / 'train.parquet').resolve()}]",
        f"sampling.n={sizes.samples}",
        f"sampling.max_tokens={sizes.max_tokens}",
        "sampling.temperature=1.0",
        "sampling.top_p=1.0",
    ]


def stage_limits() -> dict[str, int]:
    """Longest response of each stage, tokens."""
    run = run_of(load_runs(STAGES), load_hardware(HARDWARE).run, STAGES)
    return {name: stage.response_length for name, stage in run.stages.items()}


def demonstrate(
    output: Path,
    local: Path | None,
    arms: dict[str, list[str]],
    sizes: Sizes,
    settings: list[str],
    console: Console,
) -> dict[str, Any]:
    """Prepare, evaluate, train every arm; the report.

    Args:
        arms: overrides of the training, by name.
        settings: further ones of prepare.
    """
    output.mkdir(parents=True, exist_ok=True)
    console.rule("data")
    prepare_data(output, local, settings)
    console.rule("the model before training")
    base = evaluate_base(output, sizes)
    found = {}
    for arm, overrides in arms.items():
        console.rule(f"training: {arm}")
        evaluations = train_arm(output, arm, sizes, overrides, console)
        found[arm] = rows_of(output / arm, stage_limits(), base, evaluations)
    return write_report(output, base, found)


def show(report: dict[str, Any], output: Path, console: Console) -> None:
    """Print the report and say where it is."""
    from rich.markdown import Markdown

    console.print(Markdown(markdown(report)))
    console.print(
        f"written: {output}/report.json, {output}/report.md", markup=False, soft_wrap=True
    )


def command(
    arms: dict[str, list[str]], output: Path, data: Path | None, sizes: Sizes, settings: list[str]
) -> None:
    """What a script of this recipe does with the user's words: run, show, and end with the right
    exit code.
    """
    raise_on_signals()
    console = Console()
    try:
        show(demonstrate(output.resolve(), data, arms, sizes, settings, console), output, console)
    except StepFailed as error:
        raise typer.Exit(error.code) from error
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        raise typer.Exit(130) from None


def main(
    settings: SettingsArgument = None,
    data: DataOption = None,
    output: OutputOption = OUTPUT,
    samples: SamplesOption = Sizes.samples,
) -> None:
    """Prepare, train two stages and evaluate, on two CPU cores in less than half an hour."""
    command({"overlong": []}, output, data, Sizes(samples), settings or [])


if __name__ == "__main__":
    typer.run(main)
