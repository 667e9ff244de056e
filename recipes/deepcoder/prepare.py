"""Prepares training data: ``python -m recipes.deepcoder.prepare --config cpu``; the same command
goes on after a stop.

Invariants:
* One process at a time works in a folder.
* What is refused is one line and exit code 2, a stop by the user 130; what is done is kept in
  either case.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from verl_pipeline.evaluation.errors import Refused
from verl_pipeline.processes import raise_on_signals


def prepare(
    settings: Annotated[
        list[str] | None, typer.Argument(help="Further settings, as in length.max_tokens=1024.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="full, cpu, or a YAML file.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of local data files.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the parquet files and the report.")
    ] = None,
) -> None:
    """Ingest, check, de-duplicate, decontaminate and measure coding problems; write parquet files
    in verl's schema.
    """
    from recipes.deepcoder.data.preparation import Pipeline
    from recipes.deepcoder.data.preparation_loader import load_config
    from recipes.deepcoder.data.preparation_report import write_reports
    from verl_pipeline.evaluation.store import sole_owner
    from verl_pipeline.quickstart.model import ModelUnavailableError
    from verl_pipeline.sandbox import SandboxError

    console = Console(width=None if sys.stdout.isatty() else 160)
    given = [*([f"data={data}"] if data else []), *([f"output={output}"] if output else [])]
    try:
        chosen = load_config(config, [*(settings or []), *given])
        with sole_owner(Path(chosen.work or Path(chosen.output) / "work")):
            outcome = Pipeline(chosen, console).run()
            report = write_reports(chosen, outcome)
    except KeyboardInterrupt:
        print(
            "stopped; what is done is kept, and the same command goes on from there",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None
    except (Refused, SandboxError, ModelUnavailableError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    console.print(summary(report))
    for warning in report["warnings"]:
        console.print(warning, style="yellow", markup=False, highlight=False)
    written = [
        *(f"{chosen.output}/{name}" for name in report["outputs"]),
        f"{chosen.output}/report.html",
    ]
    console.print(f"written: {', '.join(written)}", markup=False, highlight=False, soft_wrap=True)


def summary(report: dict[str, Any]) -> Table:
    """A row a source: what each stage removed."""
    stages = [stage for stage in report["stages"] if stage != "split"]
    table = Table(
        "source", "rows", *stages, "left", "train", "held out", caption="removed by each stage"
    )
    for name, source in report["sources"].items():
        went = [str(-source["stages"][stage]["went"] or 0) for stage in stages]
        splits = [str(source["splits"].get(split, 0)) for split in ("train", "heldout")]
        table.add_row(name, str(source["rows"]), *went, str(source["left"]), *splits)
    return table


if __name__ == "__main__":
    raise_on_signals()
    os.environ.setdefault(
        "TOKENIZERS_PARALLELISM", "true"
    )  # else it warns of every fork of the sandbox
    typer.run(prepare)
