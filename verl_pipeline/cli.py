"""Commands: ``verl-pipeline doctor``, ``grade``, ``eval``, ``eval-compare``, ``eval-watch``."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from verl_pipeline.evaluation import commands

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


@app.callback()
def _commands() -> None:
    """One-off pipelined RL post-training on stock verl."""


@app.command()
def doctor(
    cpu: bool = typer.Option(
        False, "--cpu", help="Examine a run on CPUs (what +verl_pipeline=cpu would choose)."
    ),
) -> None:
    """Show versions, platform, devices and which of our extensions verl sees; exit 1 with the fix
    if one is missing.
    """
    if cpu:
        from verl_pipeline.plugin import register
        from verl_pipeline.verl_adapter.cpu.environment import set_environment

        set_environment()
        register()
    from verl_pipeline.doctor import examine

    findings = examine()
    table = Table("", "what", "found", "fix", show_lines=False)
    for finding in findings:
        table.add_row(
            "[green]ok[/]" if finding.ok else "[red]NO[/]",
            finding.topic,
            finding.detail,
            finding.fix,
        )
    Console().print(table)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
def grade(
    problems: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="JSONL: id, source, tests.")
    ],
    solutions: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="JSONL: id, and program or response."),
    ],
    output: Annotated[
        Path, typer.Option(help="Verdicts as JSONL; a second call grades what is missing.")
    ] = Path("verdicts.jsonl"),
    workers: Annotated[
        int | None, typer.Option(min=1, help="Programs at a time; one for each processor.")
    ] = None,
    tier: Annotated[
        str, typer.Option(help="Isolation: namespaces; by name, rlimits or remote.")
    ] = "namespaces",
    url: Annotated[
        str | None, typer.Option(help="Of a SandboxFusion server, for the tier remote.")
    ] = None,
) -> None:
    """Grade programs in the sandbox; exit 1 if a line was bad or a program could not be graded."""
    from rich.progress import track

    from verl_pipeline.grading import Verdict
    from verl_pipeline.grading.grading_files import (
        grade_solutions,
        read_problems,
        read_solutions,
        read_verdicts,
    )
    from verl_pipeline.sandbox import SandboxError, make_sandbox

    console = Console()
    try:
        sandbox = make_sandbox(tier, workers, url)
        with sandbox.lend_worker():  # a sandbox that cannot start is said before anything is graded
            pass
    except (SandboxError, ValueError) as error:
        console.print(f"[red]{error}[/]")
        raise typer.Exit(2) from error
    known, bad = read_problems(problems)
    found, bad_solutions = read_solutions(solutions, known)
    bad += bad_solutions
    before = {
        row["digest"]: row
        for row in read_verdicts(output)
        if row.get("verdict") not in (None, Verdict.INFRASTRUCTURE)
    }
    missing = [solution for solution in found if solution.digest not in before]
    for line in bad:
        console.print(f"[red]{line}[/]", soft_wrap=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = [before[solution.digest] for solution in found if solution.digest in before]
    if rows:
        console.print(f"{len(rows)} verdicts are in {output} already")
    with sandbox:
        graded = grade_solutions(missing, sandbox, output)
        rows += list(track(graded, f"grading ({tier})", total=len(missing), console=console))
    table = Table("verdict", "programs", "share")
    for verdict, count in Counter(row["verdict"] for row in rows).most_common():
        table.add_row(verdict, str(count), f"{count / len(rows):.1%}")
    console.print(
        table,
        f"verdicts: {output}; isolation: {tier}; calibration: {sandbox.calibration or 'unknown'}",
    )
    if bad or any(row["verdict"] == Verdict.INFRASTRUCTURE for row in rows):
        raise typer.Exit(1)


app.command("eval")(commands.evaluate)
app.command("eval-compare")(commands.compare)
app.command("eval-watch")(commands.watch)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
