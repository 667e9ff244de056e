"""Command line: ``verl-pipeline doctor``."""

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


@app.callback()
def _commands() -> None:
    """One-off pipelined RL post-training on stock verl."""


@app.command()
def doctor(
    cpu: bool = typer.Option(False, "--cpu", help="Examine a run on CPUs (what +verl_pipeline=cpu would choose)."),
) -> None:
    """Show versions, platform, devices and which of our extensions verl sees; exit 1 with the fix if one is missing."""
    if cpu:
        from verl_pipeline.cpu.environment import set_environment
        from verl_pipeline.plugin import register

        set_environment()
        register()
    from verl_pipeline.doctor import examine

    findings = examine()
    table = Table("", "what", "found", "fix", show_lines=False)
    for finding in findings:
        table.add_row("[green]ok[/]" if finding.ok else "[red]NO[/]", finding.topic, finding.detail, finding.fix)
    Console().print(table)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
