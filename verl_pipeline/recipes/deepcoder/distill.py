"""Distils a teacher into a student; if interrupted, rerun the same command to resume.

    python -m verl_pipeline.recipes.deepcoder.distill --method sft --config distill.yaml
    python -m verl_pipeline.recipes.deepcoder.distill --method on_policy teacher.model=DIR ...

Invariant: a refusal is one line with exit code 2, an interrupt by the user ends with exit code 130,
a failed training with 1. In all cases finished work is kept.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from verl_pipeline.evaluation.override_texts import format_override
from verl_pipeline.number_formats import format_gain
from verl_pipeline.path_options import path_option
from verl_pipeline.processes import raise_on_signals
from verl_pipeline.recipes.deepcoder.command_ends import end_by_name
from verl_pipeline.standard_streams import guard_streams


def main(
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="Settings, as in student=quickstart teacher.model=FOLDER teacher.k=8."),
    ] = None,
    method: Annotated[str | None, typer.Option(help="sft or on_policy.")] = None,
    config: Annotated[str | None, typer.Option(help="A YAML file of settings.")] = None,
    data: Annotated[
        Path | None, path_option(help="Folder with train.parquet and heldout.parquet.")
    ] = None,
    output: Annotated[Path | None, path_option(help="Folder of everything written.")] = None,
) -> None:
    """Distil, and evaluate the student on held-out problems before and after."""
    from verl_pipeline.quickstart.model import prepare_model
    from verl_pipeline.recipes.deepcoder.distillation.distill_loader import load_distillation
    from verl_pipeline.recipes.deepcoder.distillation.distillation import run_distillation
    from verl_pipeline.recipes.deepcoder.distillation.training_run import TrainingFailed

    console = Console()
    named = {"method": method, "data": data, "output": output}
    options = [format_override(name, str(value)) for name, value in named.items() if value]
    try:
        with end_by_name("interrupted; rerun the same command to resume"):
            loaded = load_distillation(config, [*(settings or []), *options])
            if loaded.device == "cpu":
                # verl fixes its platform while it is imported.
                os.environ.setdefault("VERL_PLATFORM", "cpu")
            student = str(prepare_model()) if loaded.student == "quickstart" else loaded.student
            report = run_distillation(loaded, student, console)
    except TrainingFailed as error:
        print(str(error), file=sys.stderr)
        raise typer.Exit(1) from error
    console.print(
        f"held out, paired: {format_gain(report['gain'])}; model: {report['model']}; "
        f"report: {loaded.output}/report.json",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    raise_on_signals()
    # Unset, the tokenizer warns of every fork of the sandbox.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    with guard_streams():
        typer.run(main)
