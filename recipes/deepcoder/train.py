"""``python -m recipes.deepcoder.train [verl overrides]``: DeepCoder's training, stage after stage.

    python -m recipes.deepcoder.train --hardware cpu
    python -m recipes.deepcoder.train --hardware 32xH100 --dry-run

The same command goes on where an earlier one stopped, however it stopped. Runs are in
``stages.yaml``, machines in ``hardware/<name>.yaml``.

Invariant: exit code 2 for what is refused, before anything is loaded, with one line; 130 for
Ctrl-C; 1 for a training that failed.
"""

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer
from omegaconf import OmegaConf
from rich.console import Console

from recipes.deepcoder.stages.stage_config import (
    QUICKSTART,
    STAGES,
    Hardware,
    check_stage,
    load_hardware,
    load_runs,
    run_of,
)
from recipes.deepcoder.stages.stage_overrides import Settings, place, split_words
from recipes.deepcoder.stages.training_process import TrainingFailed, command
from verl_pipeline.evaluation.errors import Refused
from verl_pipeline.processes import raise_on_signals

EXIT_REFUSED, EXIT_FAILED, EXIT_INTERRUPTED = 2, 1, 130


def main(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="verl's settings, for every stage; reproduce=released as well."),
    ] = None,
    stages: Annotated[Path, typer.Option(help="File of runs and their stages.")] = STAGES,
    hardware: Annotated[str, typer.Option(help="32xH100, 8xA100, cpu, or a file.")] = "cpu",
    run: Annotated[
        str | None, typer.Option(help="Run of the file; by default the hardware's.")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="Only this stage; those before it must be done.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder that prepare has written; by default the run's.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="By default outputs/deepcoder/<run>.")] = None,
    reproduce: Annotated[str, typer.Option(help="GRPO+ as ours, described or released.")] = "ours",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, print verl's resolved settings, stop.")
    ] = False,
) -> None:
    """Train the stages of a run; the same command goes on where an earlier one stopped."""
    raise_on_signals()  # for the training to end with us
    console = Console(stderr=True)
    try:
        machine = load_hardware(hardware)
        name = run or machine.run
        chosen = run_of(load_runs(stages), name, stages)
        check_stage(chosen, stage)
        variant, given = split_words(overrides or [], reproduce)
        settings = Settings(
            chosen,
            machine,
            _model(chosen.model),
            (data or Path(chosen.data)).resolve(),
            (output or Path("outputs/deepcoder") / name).resolve(),
            variant,
            given,
        )
        _choose_platform(machine, dry_run)
        if dry_run:
            _show(settings, stage)
        else:
            _train(settings, stage, console)
    except (Refused, OSError) as error:
        console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_REFUSED) from error
    except TrainingFailed as error:
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from error
    except KeyboardInterrupt:
        console.print(
            "interrupted: the last checkpoint stands, the same command goes on from it",
            soft_wrap=True,
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _model(name: str) -> str:
    """The folder or hub name that ``model`` of a run stands for.

    Raises:
        Refused: the quickstart's model can be neither found nor made.
    """
    if name != QUICKSTART:
        return name
    from verl_pipeline.quickstart.model import ModelUnavailableError, prepare_model

    try:
        return str(prepare_model())
    except ModelUnavailableError as error:
        raise Refused(f"model={QUICKSTART}: {' '.join(str(error).split())}") from error


def _choose_platform(hardware: Hardware, dry_run: bool) -> None:
    """verl fixes its platform while it is imported, so before that; what the user has set wins."""
    import torch

    if hardware.device == "cpu":
        os.environ.setdefault("VERL_PLATFORM", "cpu")
    elif dry_run and not torch.cuda.is_available():
        os.environ.setdefault("VERL_PLATFORM", "nvidia")


def _show(settings: Settings, only: str | None) -> None:
    """Print each stage as a YAML document: the command and what was not checked as comments, then
    verl's settings.
    """
    from recipes.deepcoder.stages.stage_checks import plan

    for planned in plan(settings, dry_run=True):
        if only not in (None, planned.name):
            continue
        line = shlex.join(command([*planned.overrides, *place(0)])).replace("\n", "'$'\\n''")
        print(f"---\n# stage {planned.name}\n# {line}")
        for text in planned.derived:
            print(f"# derived: {text}")
        for text in planned.notes:
            print(f"# {text}")
        print(OmegaConf.to_yaml(planned.config, resolve=True))


def _train(settings: Settings, only: str | None, console: Console) -> None:
    from recipes.deepcoder.stages.stage_checks import plan
    from recipes.deepcoder.stages.stage_runner import run

    planned = plan(settings)
    for note in dict.fromkeys(note for stage in planned for note in stage.notes):
        console.print(note, style="yellow", markup=False, highlight=False, soft_wrap=True)
    run(settings, planned, only, console)
    console.print(
        "checkpoints are evaluated by: verl-pipeline eval-watch "
        f"{settings.output}/<stage>/checkpoints",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    typer.run(main)
