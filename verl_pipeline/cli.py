"""The command ``verl-pipeline``: doctor, demo, plan, grade, eval and its kin, report and more."""

import sys
from typing import Annotated

import typer
from rich.console import Console

from verl_pipeline import __version__
from verl_pipeline.standard_streams import guard_streams

try:
    from verl_pipeline.demo import run_demo
    from verl_pipeline.evaluation import commands
    from verl_pipeline.grading.commands import run_grade
    from verl_pipeline.planning.commands import run_plan
    from verl_pipeline.report.commands import run_report
    from verl_pipeline.telemetry.commands import run_ledger, run_top
except ImportError as error:  # `doctor` starts all the same, and says what is missing
    _import_error: ImportError | None = error
else:
    _import_error = None

# In one line a paragraph: typer keeps the line breaks of a docstring's later ones.
_DOCTOR_HELP = (
    "Check versions, verl's view of the plugin, devices and the sandbox; with --run, train a tiny "
    "model.\n\n"
    "Exit code 1: something is missing; the report says what to do.\n\n"
    "With --run, give what you would give python -m verl_pipeline.main: pools, engine, backend. "
    "Three steps are trained on these settings and checked, in about two minutes and without a "
    "network. Exit code 0: all checks passed; 1: one failed; 2: the settings cannot work, and "
    "nothing was trained; 3: none failed, but something could not be checked.\n\n"
    "Example: verl-pipeline doctor --run trainer.n_gpus_per_node=4 "
    "actor_rollout_ref.rollout.nnodes=1 actor_rollout_ref.rollout.n_gpus_per_node=4\n\n"
    "docs/acceptance.md explains each check."
)

app = typer.Typer(no_args_is_help=True, add_completion=False)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from verl_pipeline.machine import read_package_versions

        versions = {"verl-pipeline": __version__} | read_package_versions()
        typer.echo("\n".join(f"{package} {version}" for package, version in versions.items()))
        raise typer.Exit()


@app.callback()
def _describe_app(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show versions and exit."
        ),
    ] = False,
) -> None:
    """One-off pipelined RL post-training on stock verl."""


@app.command(
    help=_DOCTOR_HELP,
    # Hydra's options follow, too.
    context_settings={"ignore_unknown_options": True},
)
def doctor(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="With --run: settings of the training, as key=value."),
    ] = None,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="Check for a run on CPUs (as with +verl_pipeline=cpu).")
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="Also try the SandboxFusion server at this URL.")
    ] = None,
    run: Annotated[
        bool,
        typer.Option(
            "--run",
            help="Train three steps of a tiny model on the settings that follow, and check what "
            "the run did.",
        ),
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="With --run: keep the log of a run that passes, too.")
    ] = False,
) -> None:
    """See :data:`_DOCTOR_HELP`."""
    if run:
        raise typer.Exit(_run_acceptance(overrides or [], cpu, keep))
    if wrong := [*(overrides or []), *(["--keep"] if keep else [])]:
        raise typer.BadParameter(f"{' '.join(wrong)}: only --run takes this; add --run")
    from verl_pipeline.doctor import list_checks, report_findings

    if report_findings(Console(), list_checks(cpu, url)):
        raise typer.Exit(1)


def _run_acceptance(words: list[str], cpu: bool, keep: bool) -> int:
    from verl_pipeline.acceptance.command import run_acceptance
    from verl_pipeline.processes import raise_on_signals

    raise_on_signals()
    try:
        return run_acceptance(words, Console(), cpu=cpu, keep=keep)
    except KeyboardInterrupt:
        typer.echo("interrupted: the run has ended, nothing of it is left", err=True)
        return 130


if _import_error is None:
    app.command("demo")(run_demo)
    app.command("plan")(run_plan)
    app.command("grade")(run_grade)
    app.command("eval")(commands.run_eval)
    app.command("eval-compare")(commands.run_compare)
    app.command("eval-watch")(commands.run_watch)
    app.command("report")(run_report)
    app.command("ledger")(run_ledger)
    app.command("top")(run_top)


def main() -> None:
    """Entry point of the console script."""
    with guard_streams():
        try:
            if _import_error is not None and sys.argv[1:2] not in (["doctor"], ["--version"]):
                raise _import_error
            app()
        except ImportError as error:
            sys.exit(f"error: {error}; verl-pipeline doctor says what is missing")


if __name__ == "__main__":
    main()
