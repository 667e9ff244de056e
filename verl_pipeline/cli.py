"""The command ``verl-pipeline``: doctor, grade, eval, eval-compare and eval-watch."""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from verl_pipeline import __version__
from verl_pipeline.number_formats import format_percent

try:
    from verl_pipeline.evaluation import commands
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


@app.command()
def grade(
    problems: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="JSONL with id, source, tests.")
    ],
    solutions: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="JSONL with id and program or response."),
    ],
    output: Annotated[
        Path, typer.Option(help="JSONL file for verdicts; programs that it has are skipped.")
    ] = Path("verdicts.jsonl"),
    workers: Annotated[
        int | None, typer.Option(min=1, help="Parallel programs; default: one per processor.")
    ] = None,
    tier: Annotated[
        str, typer.Option(help="Isolation: namespaces, rlimits or remote.")
    ] = "namespaces",
    url: Annotated[
        str | None, typer.Option(help="URL of a SandboxFusion server, for tier remote.")
    ] = None,
) -> None:
    """Grade programs in the sandbox; if interrupted, rerun the same command to resume.

    Exit code 1: a line was unreadable or a program could not be graded; 2: no sandbox, or the
    output cannot be written.
    """
    from contextlib import closing

    from rich.progress import track

    from verl_pipeline.grading import Verdict
    from verl_pipeline.grading.grading_files import (
        VERDICTS,
        grade_solutions,
        read_problems,
        read_solutions,
    )
    from verl_pipeline.outputs.errors import OutputError
    from verl_pipeline.outputs.files import JsonLinesFile, refuse_inputs
    from verl_pipeline.sandbox import SandboxError, make_sandbox

    console = Console()
    try:
        refuse_inputs(output, "--output", {"PROBLEMS": problems, "SOLUTIONS": solutions})
        sandbox = make_sandbox(tier, workers, url)
        with sandbox.lend_worker():  # fails now if the sandbox cannot start
            pass
    except (SandboxError, ValueError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    problems_by_id, bad_lines = read_problems(problems)
    programs, bad_solutions = read_solutions(solutions, problems_by_id)
    bad_lines += bad_solutions
    for line in bad_lines:
        console.print(f"[red]{line}[/]", soft_wrap=True)
    try:
        with closing(JsonLinesFile(output, VERDICTS)) as verdicts, sandbox:
            graded_rows = {
                row["digest"]: row
                for row in verdicts.read_rows()
                if row["verdict"] != Verdict.INFRASTRUCTURE
            }
            missing = [program for program in programs if program.digest not in graded_rows]
            rows = [
                graded_rows[program.digest] for program in programs if program.digest in graded_rows
            ]
            if rows:
                console.print(f"{len(rows)} verdicts are in {output} already")
            graded = grade_solutions(missing, sandbox, verdicts)
            rows += list(track(graded, f"grading ({tier})", total=len(missing), console=console))
    except OutputError as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    table = Table("verdict", "programs", "share")
    for verdict, count in Counter(row["verdict"] for row in rows).most_common():
        table.add_row(verdict, str(count), format_percent(count / len(rows)))
    console.print(
        table,
        f"verdicts: {output}; isolation: {tier}; calibration: {sandbox.calibration or 'unknown'}",
    )
    if bad_lines or any(row["verdict"] == Verdict.INFRASTRUCTURE for row in rows):
        raise typer.Exit(1)


if _import_error is None:
    app.command("eval")(commands.run_eval)
    app.command("eval-compare")(commands.run_compare)
    app.command("eval-watch")(commands.run_watch)


def main() -> None:
    """Entry point of the console script."""
    if _import_error is not None and sys.argv[1:2] not in (["doctor"], ["--version"]):
        sys.exit(f"error: {_import_error}; verl-pipeline doctor says what is missing")
    app()


if __name__ == "__main__":
    main()
