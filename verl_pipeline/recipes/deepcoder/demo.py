"""The whole recipe, scaled down to run on two CPU cores with real engines.

    python -m verl_pipeline.recipes.deepcoder.demo --data FOLDER

It prepares data, trains a model of 135M parameters in two stages of growing context, and evaluates
the model before training and after each stage on problems held out from training.

    OUTPUT/data                 prepared data
    OUTPUT/base                 evaluation of the model before training
    OUTPUT/<arm>                stages of one training; <arm>/eval/<stage> their evaluations
    OUTPUT/report.json, .md     truncated share and score of each stage, with intervals
    OUTPUT/report.html          where the seconds of each stage's training went

Invariants:
* Every number of the report is read from files of the run; none is selected or left out.
* If interrupted, rerun the same command to resume.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from verl_pipeline.errors import UserError
from verl_pipeline.evaluation.checkpoint_evaluation import WatchSettings, evaluate_checkpoint
from verl_pipeline.evaluation.override_texts import format_override
from verl_pipeline.outputs.folders import FolderKind, claim_output
from verl_pipeline.path_options import path_option
from verl_pipeline.processes import end_with_parent, raise_on_signals
from verl_pipeline.quickstart.model import ModelUnavailableError, prepare_model
from verl_pipeline.recipes.deepcoder.demo_report import (
    build_stage_rows,
    render_markdown,
    write_demo_report,
)
from verl_pipeline.recipes.deepcoder.stages.stage_loader import (
    STAGES_FILE,
    load_hardware,
    load_runs,
    select_run,
)
from verl_pipeline.report.run_end import write_end_report
from verl_pipeline.standard_streams import guard_streams

HARDWARE = "cpu"
DEMONSTRATION = FolderKind(
    "verl_pipeline.recipes.deepcoder.demo",
    landmarks=("data/work",),
    written=("report.json", "report.md", "report.html"),
)
DEFAULT_OUTPUT = Path("outputs/deepcoder-demo")
SettingsArgument = Annotated[list[str] | None, typer.Argument(help="Further settings of prepare.")]
DataOption = Annotated[Path | None, path_option(help="Folder of local data files.")]
OutputOption = Annotated[Path, path_option(help="Folder of all results.")]
SamplesOption = Annotated[int, typer.Option(min=2, help="Responses per held-out problem.")]


@dataclass(frozen=True)
class EvaluationSize:
    """Size of each evaluation.

    Attributes:
        samples: responses per held-out problem.
        max_tokens: maximum length of a response. It is the last stage's limit for all evaluations,
            so that they are comparable.
    """

    samples: int = 8
    max_tokens: int = 128


class CommandError(Exception):
    """A command of the recipe failed; it has printed its error itself."""

    def __init__(self, exit_code: int):
        self.exit_code = exit_code


def run_command(module: str, *arguments: str) -> None:
    """Run ``python -m module arguments`` with our output; SIGTERM ends it when we end.

    Raises:
        CommandError: its exit code is not 0.
    """
    # In a session of its own, so that Ctrl-C reaches it only once, through us.
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    try:
        exit_code = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    if exit_code:
        raise CommandError(exit_code)


def prepare_data(output: Path, local_data: Path | None, settings: list[str]) -> Path:
    """Prepare the data, and return its folder."""
    folder = output / "data"
    arguments = ["--config", "cpu", "--output", str(folder)]
    if local_data:
        arguments += ["--data", str(local_data)]
    run_command("verl_pipeline.recipes.deepcoder.prepare", *arguments, *settings)
    return folder


def evaluate_base(output: Path, size: EvaluationSize) -> Path:
    """Evaluate the model before training, and return the folder of the evaluation."""
    folder = output / "base"
    arguments = ["eval", "--model", str(prepare_model()), "--output", str(folder)]
    run_command("verl_pipeline.cli", *arguments, *_build_eval_settings(output / "data", size))
    return folder


def train_arm(
    output: Path, arm: str, size: EvaluationSize, overrides: list[str], console: Console
) -> dict[str, Path]:
    """Train all stages below ``output/arm`` and evaluate the last checkpoint of each.

    Returns:
        The folder of each stage's evaluation, by stage.
    """
    folder = output / arm
    arguments = ["--hardware", HARDWARE, "--data", str(output / "data"), "--output", str(folder)]
    run_command("verl_pipeline.recipes.deepcoder.train", *arguments, *overrides)
    stages = json.loads((folder / "stages.json").read_text())["stages"]
    evaluations = {}
    for name, stage in stages.items():
        watch = WatchSettings(
            folder / name / "checkpoints",
            folder / "eval" / name,
            _build_eval_settings(output / "data", size),
        )
        evaluations[name] = watch.output / f"step_{stage['ended_at']}"
        if not (evaluations[name] / "results.json").is_file():
            evaluate_checkpoint(watch, stage["ended_at"], console)
    return evaluations


def _build_eval_settings(data: Path, size: EvaluationSize) -> list[str]:
    """Return settings of ``verl-pipeline eval``: held-out problems, sampled as in training."""
    return [
        "tasks=[parquet]",
        format_override("options.parquet.file", str((data / "heldout.parquet").resolve())),
        format_override("train_data", [str((data / "train.parquet").resolve())]),
        f"sampling.n={size.samples}",
        f"sampling.max_tokens={size.max_tokens}",
        "sampling.temperature=1.0",
        "sampling.top_p=1.0",
    ]


def load_response_limits() -> dict[str, int]:
    """Return the maximum length of a response in each stage, in tokens."""
    run = select_run(load_runs(STAGES_FILE), load_hardware(HARDWARE).run, STAGES_FILE)
    return {name: stage.response_length for name, stage in run.stages.items()}


def run_demo(
    output: Path,
    local_data: Path | None,
    arms: dict[str, list[str]],
    size: EvaluationSize,
    settings: list[str],
    console: Console,
) -> dict[str, Any]:
    """Prepare the data, evaluate the model, train every arm, and return the report.

    Args:
        output: folder of all results.
        local_data: folder of local data files.
        arms: overrides of each training, by name.
        size: size of each evaluation.
        settings: further settings of prepare.
        console: where progress is shown.
    """
    with claim_output(output, DEMONSTRATION):
        return _run_steps(output, local_data, arms, size, settings, console)


def _run_steps(
    output: Path,
    local_data: Path | None,
    arms: dict[str, list[str]],
    size: EvaluationSize,
    settings: list[str],
    console: Console,
) -> dict[str, Any]:
    console.rule("data")
    prepare_data(output, local_data, settings)
    console.rule("the model before training")
    base = evaluate_base(output, size)
    rows_by_arm = {}
    for arm, overrides in arms.items():
        console.rule(f"training: {arm}")
        evaluations = train_arm(output, arm, size, overrides, console)
        rows_by_arm[arm] = build_stage_rows(output / arm, load_response_limits(), base, evaluations)
    return write_demo_report(output, base, rows_by_arm)


def print_report(report: dict[str, Any], output: Path, console: Console) -> None:
    """Print the report and where it was written."""
    from rich.markdown import Markdown

    console.print(Markdown(render_markdown(report)))
    console.print(
        f"written: {output}/report.json, {output}/report.md", markup=False, soft_wrap=True
    )


def list_run_folders(folder: Path) -> list[Path]:
    """Return the run's folder of each stage of a training below ``folder``, in order."""
    stages = json.loads((folder / "stages.json").read_text())["stages"]
    return [folder / name / "checkpoints" for name in stages]


def run_script(
    arms: dict[str, list[str]],
    output: Path,
    data: Path | None,
    size: EvaluationSize,
    settings: list[str],
) -> None:
    """Run the demonstration as a command: print the report, and exit with the right code."""
    raise_on_signals()
    console = Console()
    try:
        report = run_demo(output.resolve(), data, arms, size, settings, console)
        print_report(report, output, console)
        runs = [path for arm in arms for path in list_run_folders(output.resolve() / arm)]
        write_end_report(console, runs, output.resolve() / "report.html")
    except CommandError as error:
        raise typer.Exit(error.exit_code) from error
    except (UserError, ModelUnavailableError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        print("interrupted; rerun the same command to resume", file=sys.stderr)
        raise typer.Exit(130) from None


def main(
    settings: SettingsArgument = None,
    data: DataOption = None,
    output: OutputOption = DEFAULT_OUTPUT,
    samples: SamplesOption = EvaluationSize.samples,
) -> None:
    """Prepare, train two stages and evaluate, on two CPU cores in less than half an hour."""
    run_script({"overlong": []}, output, data, EvaluationSize(samples), settings or [])


if __name__ == "__main__":
    with guard_streams():
        typer.run(main)
