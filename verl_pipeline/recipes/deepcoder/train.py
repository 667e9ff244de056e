"""Trains the stages of a run, one after the other.

    python -m verl_pipeline.recipes.deepcoder.train --hardware cpu
    python -m verl_pipeline.recipes.deepcoder.train --hardware 32xH100 --dry-run

If interrupted, in whatever way, rerun the same command to resume. Runs are defined in
``stages.yaml``, hardware in ``hardware/<name>.yaml``.

Invariant: a refusal is one line with exit code 2, before anything is loaded; Ctrl-C ends with exit
code 130, a failed training with 1.
"""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from omegaconf import OmegaConf
from rich.console import Console

from verl_pipeline.errors import UserError, show_line
from verl_pipeline.outputs.folders import check_output
from verl_pipeline.path_options import path_option
from verl_pipeline.processes import raise_on_signals
from verl_pipeline.recipes.deepcoder.stages.run_state import (
    STATE_FILE,
    TRAINING,
    check_identity,
    list_constant_settings,
    load_state,
)
from verl_pipeline.recipes.deepcoder.stages.stage_config import QUICKSTART_MODEL, HardwareConfig
from verl_pipeline.recipes.deepcoder.stages.stage_loader import (
    STAGES_FILE,
    check_stage_name,
    load_hardware,
    load_runs,
    select_run,
)
from verl_pipeline.recipes.deepcoder.stages.stage_overrides import (
    RunSettings,
    build_stream_overrides,
    split_overrides,
)
from verl_pipeline.recipes.deepcoder.stages.training_process import TrainingError, build_command
from verl_pipeline.standard_streams import exit_if_refused, guard_streams
from verl_pipeline.verl_adapter.cpu.environment import warm_up_processes

EXIT_REFUSED, EXIT_FAILED, EXIT_INTERRUPTED = 2, 1, 130


def main(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings of verl for every stage; also reproduce=released."),
    ] = None,
    stages: Annotated[
        Path,
        path_option(
            help="File of runs and their stages.",
            show_default="verl_pipeline/recipes/deepcoder/stages.yaml",
        ),
    ] = STAGES_FILE,
    hardware: Annotated[str, typer.Option(help="32xH100, 8xA100, cpu, or a file.")] = "cpu",
    run: Annotated[
        str | None, typer.Option(help="Run of the stages file; by default the hardware's.")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="Train only this stage; earlier ones must be done.")
    ] = None,
    data: Annotated[
        Path | None, path_option(help="Folder that prepare has written; by default the run's.")
    ] = None,
    output: Annotated[Path | None, path_option(help="By default outputs/deepcoder/<run>.")] = None,
    reproduce: Annotated[str, typer.Option(help="GRPO+ as ours, described or released.")] = "ours",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, print verl's resolved settings, stop.")
    ] = False,
) -> None:
    """Train the stages of a run; if interrupted, rerun the same command to resume."""
    raise_on_signals()  # the training ends when we end
    console = Console(stderr=True)
    try:
        hardware_config = load_hardware(hardware)
        run_name = hardware_config.run if run is None else run
        run_config = select_run(load_runs(stages), run_name, stages)
        check_stage_name(run_config, stage)
        folder = (output or Path("outputs/deepcoder") / run_name).resolve()
        check_output(folder, TRAINING, {"--stages": stages})
        variant, own_overrides = split_overrides(overrides or [], reproduce)
        settings = RunSettings(
            run_config,
            hardware_config,
            _resolve_model(run_config.model),
            (data or Path(run_config.data)).resolve(),
            folder,
            variant,
            own_overrides,
        )
        _choose_platform(hardware_config, dry_run)
        if dry_run:
            _print_plans(settings, stage)
        else:
            if hardware_config.device == "cpu":
                warm_up_processes(sys.argv)
            _train_stages(settings, stage, console)
    except (UserError, OSError) as error:
        if isinstance(error, OSError):
            exit_if_refused(error)
        for line in str(error).splitlines():
            console.print(
                f"error: {show_line(line)}", markup=False, highlight=False, soft_wrap=True
            )
        raise typer.Exit(EXIT_REFUSED) from error
    except TrainingError as error:
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from error
    except KeyboardInterrupt:
        console.print(
            "interrupted; rerun the same command to resume from the last checkpoint",
            soft_wrap=True,
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _resolve_model(name: str) -> str:
    """Return the folder or hub name of a run's ``model``.

    Raises:
        UserError: the quickstart's model can neither be found nor made.
    """
    if name != QUICKSTART_MODEL:
        return name
    from verl_pipeline.quickstart.model import ModelUnavailableError, prepare_model

    try:
        return str(prepare_model())
    except ModelUnavailableError as error:
        raise UserError(f"model={QUICKSTART_MODEL}: {' '.join(str(error).split())}") from error


def _choose_platform(hardware: HardwareConfig, dry_run: bool) -> None:
    """Set verl's platform, unless the user has set it.

    verl fixes its platform while it is imported, so this must come before.
    """
    import torch

    if hardware.device == "cpu":
        os.environ.setdefault("VERL_PLATFORM", "cpu")
    elif dry_run and not torch.cuda.is_available():
        os.environ.setdefault("VERL_PLATFORM", "nvidia")


def _print_plans(settings: RunSettings, only: str | None) -> None:
    """Print each stage as a YAML document.

    Comments hold the command, the derived settings and the skipped checks; verl's settings follow.
    """
    from verl_pipeline.recipes.deepcoder.stages.stage_checks import plan_stages

    plans = plan_stages(settings, dry_run=True)
    if state := load_state(settings.output / STATE_FILE):
        check_identity(state, list_constant_settings(plans[0].config))
    for plan in plans:
        if only not in (None, plan.name):
            continue
        command = shlex.join(build_command([*plan.overrides, *build_stream_overrides(0)]))
        # A quoted newline would end the comment; $'\n' keeps the command on one line for the shell.
        command = command.replace("\n", "'$'\\n''")
        print(f"---\n# stage {plan.name}\n# {command}")
        for text in plan.derived:
            print(f"# derived: {text}")
        for text in plan.notes:
            print(f"# {text}")
        print(OmegaConf.to_yaml(plan.config, resolve=True))


def _train_stages(settings: RunSettings, only: str | None, console: Console) -> None:
    from verl_pipeline.recipes.deepcoder.stages.stage_checks import plan_stages
    from verl_pipeline.recipes.deepcoder.stages.stage_runner import run_stages

    plans = plan_stages(settings)
    for note in dict.fromkeys(note for plan in plans for note in plan.notes):
        console.print(note, style="yellow", markup=False, highlight=False, soft_wrap=True)
    run_stages(settings, plans, only, console)
    console.print(
        "to evaluate the checkpoints: verl-pipeline eval-watch "
        f"{settings.output}/<stage>/checkpoints",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    with guard_streams():
        typer.run(main)
