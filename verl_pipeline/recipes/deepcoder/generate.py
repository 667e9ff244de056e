"""Makes training problems that can be graded; if interrupted, rerun the same command to resume.

    python -m verl_pipeline.recipes.deepcoder.generate --data <local files> --output OUTPUT

Invariants:
* One process at a time works in an output folder and in a folder of stored results.
* A refusal is one line with exit code 2; an interrupt by the user ends with exit code 130. In both
  cases finished work is kept.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from verl_pipeline.evaluation.override_texts import format_override
from verl_pipeline.outputs.folders import FolderKind
from verl_pipeline.path_options import path_option
from verl_pipeline.processes import raise_on_signals
from verl_pipeline.recipes.deepcoder.command_ends import end_by_name
from verl_pipeline.recipes.deepcoder.prepare import build_summary
from verl_pipeline.standard_streams import guard_streams

# Columns of the output if it is not a terminal: the summary table needs more than the usual 80.
_FILE_WIDTH = 160
GENERATION = FolderKind(
    "verl_pipeline.recipes.deepcoder.generate",
    landmarks=("work/.lock", "rows/*.jsonl"),
    written=(
        *("train.parquet", "heldout.parquet", "removed.jsonl", "report.json", "report.html"),
        *("rows/*.jsonl", "problems.jsonl", "solutions.jsonl", "generation.json"),
    ),
)
STORED_RESULTS = FolderKind(
    "the stored results of verl_pipeline.recipes.deepcoder.generate",
    landmarks=(".lock", "built-*.jsonl"),
    written=(
        *("*/kept.jsonl", "*/removed.jsonl", "verdicts.jsonl"),
        *("built-*.jsonl", "answers.jsonl", "solver-verdicts.jsonl"),
    ),
    option="work",
)


def main(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            help="Further settings, as in codeio.limit=100 or prepare.length.max_tokens=1024."
        ),
    ] = None,
    config: Annotated[str | None, typer.Option(help="A YAML file of settings.")] = None,
    data: Annotated[Path | None, path_option(help="Folder of local data files.")] = None,
    output: Annotated[
        Path | None, path_option(help="Folder of the parquet files and the report.")
    ] = None,
) -> None:
    """Make verified coding problems, and prepare them as parquet files in verl's schema."""
    try:
        from verl_pipeline.recipes.deepcoder.generation.generation import Generation
    except ModuleNotFoundError as error:
        print(f"error: {error}: pip install '.[recipe]' in the clone's folder", file=sys.stderr)
        raise typer.Exit(2) from error
    from verl_pipeline.outputs.folders import claim_output
    from verl_pipeline.recipes.deepcoder.data.preparation_report import write_reports
    from verl_pipeline.recipes.deepcoder.generation.generation_loader import load_generation
    from verl_pipeline.recipes.deepcoder.generation.generation_report import (
        build_method_table,
        write_figures,
    )

    console = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
    named = {"data": data, "output": output}
    options = [format_override(name, str(path)) for name, path in named.items() if path]
    with end_by_name("interrupted; finished work is kept, rerun the same command to resume"):
        loaded, preparation = load_generation(config, [*(settings or []), *options])
        folder = Path(loaded.output)
        inputs = {
            name: Path(path)
            for name, path in {
                "--config": config,
                "data": loaded.data,
                "codeio.file": loaded.codeio.file,
                "strengthen.samples": loaded.strengthen.samples,
            }.items()
            if path
        }
        with (
            claim_output(folder, GENERATION, inputs),
            claim_output(Path(loaded.work or folder / "work"), STORED_RESULTS, inputs),
        ):
            generation = Generation(loaded, preparation, console)
            result = generation.run()
            result.warnings.extend(generation.warnings)
            report = write_reports(preparation, result)
            figures = write_figures(loaded, generation.rows, result)
    console.print(build_summary(report))
    console.print(build_method_table(figures))
    for warning in report["warnings"]:
        console.print(warning, style="yellow", markup=False, highlight=False)
    files = [*report["outputs"], "report.html", "generation.json"]
    written = ", ".join(f"{loaded.output}/{name}" for name in files)
    console.print(f"written: {written}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    raise_on_signals()
    # Unset, the tokenizer warns of every fork of the sandbox.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    with guard_streams():
        typer.run(main)
