"""Prepares training data; if interrupted, rerun the same command to resume.

    python -m verl_pipeline.recipes.deepcoder.prepare --config cpu

Invariants:
* One process at a time works in an output folder and in a folder of the stage cache.
* A refusal is one line with exit code 2; an interrupt by the user ends with exit code 130. In both
  cases finished work is kept.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from verl_pipeline.evaluation.override_texts import format_override
from verl_pipeline.outputs.folders import FolderKind
from verl_pipeline.path_options import path_option
from verl_pipeline.processes import raise_on_signals
from verl_pipeline.recipes.deepcoder.command_ends import end_by_name
from verl_pipeline.standard_streams import guard_streams

# Columns of the output if it is not a terminal: the summary table needs more than the usual 80.
_FILE_WIDTH = 160
PREPARATION = FolderKind(
    "verl_pipeline.recipes.deepcoder.prepare",
    landmarks=("work/.lock",),
    written=("train.parquet", "heldout.parquet", "removed.jsonl", "report.json", "report.html"),
)
STAGE_CACHE = FolderKind(
    "the stage cache of verl_pipeline.recipes.deepcoder.prepare",
    landmarks=(".lock", "ingest-*/done.json"),
    written=("*/kept.jsonl", "*/removed.jsonl", "verdicts.jsonl"),
    option="work",
)


def main(
    settings: Annotated[
        list[str] | None, typer.Argument(help="Further settings, as in length.max_tokens=1024.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="full, cpu, or a YAML file.")] = None,
    data: Annotated[Path | None, path_option(help="Folder of local data files.")] = None,
    output: Annotated[
        Path | None, path_option(help="Folder of the parquet files and the report.")
    ] = None,
) -> None:
    """Prepare verified coding problems as parquet files in verl's schema."""
    try:
        from verl_pipeline.recipes.deepcoder.data.preparation import Preparation
    except ModuleNotFoundError as error:
        print(f"error: {error}: pip install '.[recipe]' in the clone's folder", file=sys.stderr)
        raise typer.Exit(2) from error
    from verl_pipeline.outputs.folders import claim_output
    from verl_pipeline.recipes.deepcoder.data.preparation_loader import load_preparation
    from verl_pipeline.recipes.deepcoder.data.preparation_report import write_reports

    console = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
    named = {"data": data, "output": output}
    options = [format_override(name, str(path)) for name, path in named.items() if path]
    with end_by_name("interrupted; finished work is kept, rerun the same command to resume"):
        loaded = load_preparation(config, [*(settings or []), *options])
        folder = Path(loaded.output)
        inputs = {
            name: Path(path)
            for name, path in {
                "--config": config,
                "data": loaded.data,
                "difficulty.rates": loaded.difficulty.rates,
            }.items()
            if path
        }
        with (
            claim_output(folder, PREPARATION, inputs),
            claim_output(Path(loaded.work or folder / "work"), STAGE_CACHE, inputs),
        ):
            result = Preparation(loaded, console).run()
            report = write_reports(loaded, result)
    console.print(build_summary(report))
    for warning in report["warnings"]:
        console.print(warning, style="yellow", markup=False, highlight=False)
    files = [*report["outputs"], "report.html"]
    written = ", ".join(f"{loaded.output}/{name}" for name in files)
    console.print(f"written: {written}", markup=False, highlight=False, soft_wrap=True)


def build_summary(report: dict[str, Any]) -> Table:
    """Build a table with a row per data source: how many rows each stage removed."""
    stages = [stage for stage in report["stages"] if stage != "split"]
    table = Table(
        "source", "rows", *stages, "left", "train", "held out", caption="rows removed by each stage"
    )
    for name, source in report["sources"].items():
        removed = [str(-source["stages"][stage]["went"] or 0) for stage in stages]
        splits = [str(source["splits"].get(split, 0)) for split in ("train", "heldout")]
        table.add_row(name, str(source["rows"]), *removed, str(source["left"]), *splits)
    return table


if __name__ == "__main__":
    raise_on_signals()
    # Unset, the tokenizer warns of every fork of the sandbox.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    with guard_streams():
        typer.run(main)
