"""The command ``verl-pipeline``: doctor, grade, eval, eval-compare and eval-watch.

Invariant: if standard output refuses what a command prints (a full disk), one line says so.
"""

import os
import sys
from typing import Annotated

import typer
from rich.console import Console

from verl_pipeline import __version__

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
    try:
        if _import_error is not None and sys.argv[1:2] not in (["doctor"], ["--version"]):
            raise _import_error
        app()
    except ImportError as error:
        sys.exit(f"error: {error}; verl-pipeline doctor says what is missing")
    except OSError as error:
        reason = _try_output()
        if reason is None:
            raise
        print(
            f"error: standard output cannot be written: {reason}; files that the command had "
            "finished are intact, and the same command takes them up",
            file=sys.stderr,
        )
        raise SystemExit(2) from error


def _try_output() -> str | None:
    """Return why standard output cannot be written, or None if it can.

    What it still holds is dropped if it cannot, or Python would try once more when it ends.
    """
    try:
        # Python drops the text of a write that failed, so an empty buffer proves nothing.
        os.write(sys.stdout.fileno(), b"\n")
    except OSError as error:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return error.strerror or str(error)
    return None


if __name__ == "__main__":
    main()
