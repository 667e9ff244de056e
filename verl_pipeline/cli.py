"""The command ``verl-pipeline``: doctor, grade, eval, eval-compare and eval-watch."""

import sys
from typing import Annotated

import typer
from rich.console import Console

from verl_pipeline import __version__
from verl_pipeline.standard_streams import guard_streams

try:
    from verl_pipeline.evaluation import commands
    from verl_pipeline.grading.commands import run_grade
except ImportError as error:  # `doctor` starts all the same, and says what is missing
    _import_error: ImportError | None = error
else:
    _import_error = None

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


@app.command()
def doctor(
    cpu: Annotated[
        bool, typer.Option("--cpu", help="Check for a run on CPUs (as with +verl_pipeline=cpu).")
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="Also try the SandboxFusion server at this URL.")
    ] = None,
) -> None:
    """Check versions, verl's view of the plugin, devices and the sandbox.

    Exit code 1: something is missing; the report says what to do.
    """
    from verl_pipeline.doctor import list_checks, report_findings

    if report_findings(Console(), list_checks(cpu, url)):
        raise typer.Exit(1)


if _import_error is None:
    app.command("grade")(run_grade)
    app.command("eval")(commands.run_eval)
    app.command("eval-compare")(commands.run_compare)
    app.command("eval-watch")(commands.run_watch)


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
