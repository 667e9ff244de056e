"""The command ``grade``.

Invariants:
* Every line of the solutions is counted, with a verdict or with the reason why it has none; shares
  are of all lines.
* Standard output has the totals only; messages and progress go to standard error.
"""

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from verl_pipeline.number_formats import format_decimal
from verl_pipeline.path_options import path_argument, path_option


def run_grade(
    problems: Annotated[Path, path_argument(help="JSONL with id, source, tests.")],
    solutions: Annotated[Path, path_argument(help="JSONL with id and program or response.")],
    output: Annotated[
        Path, path_option(help="JSONL file for verdicts; programs that it has are skipped.")
    ] = Path("verdicts.jsonl"),
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Parallel programs; default: one per processor."),
    ] = None,
    tier: Annotated[
        str, typer.Option(help="Isolation: namespaces, rlimits or remote.")
    ] = "namespaces",
    url: Annotated[
        str | None, typer.Option(help="URL of a SandboxFusion server, for tier remote.")
    ] = None,
    all_tests: Annotated[
        bool,
        typer.Option(
            "--all-tests",
            help="Run the tests after the first failure too, and count those that pass; verdicts "
            "and rewards stay the same.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the totals as JSON.")] = False,
) -> None:
    """Grade programs in the sandbox; if interrupted, rerun the same command to resume.

    Exit code 0: every line of the solutions has a verdict.

    1: a line of either file could not be read, or a program not graded.

    2: a wrong option or file, no sandbox, or the output cannot be written.
    """
    from rich.progress import track

    from verl_pipeline.errors import UserError
    from verl_pipeline.grading.grading_files import (
        VERDICTS,
        grade_solutions,
        select_usable_verdicts,
    )
    from verl_pipeline.grading.grading_inputs import read_problems, read_solutions
    from verl_pipeline.grading.grading_totals import count_lines, make_totals_table
    from verl_pipeline.input_files import check_json_lines
    from verl_pipeline.outputs.files import JsonLinesFile, refuse_inputs
    from verl_pipeline.sandbox import SandboxError, make_sandbox

    # Lines stay whole: what is copied from them, or searched in them, is not cut.
    messages = Console(stderr=True, soft_wrap=True)
    try:
        sandbox = make_sandbox(tier, workers, url)
    except ValueError as error:
        _print_line(messages, str(error), "red")
        raise typer.Exit(2) from error
    try:
        for path in (problems, solutions):
            check_json_lines(path)
        refuse_inputs(output, "--output", {"PROBLEMS": problems, "SOLUTIONS": solutions})
        with sandbox:
            sandbox.check_start()
            problem_file = read_problems(problems)
            programs, bad_solutions = read_solutions(solutions, problem_file)
            for line in (*problem_file.bad_lines, *bad_solutions):
                _print_line(messages, str(line), "red")
            with closing(JsonLinesFile(output, VERDICTS)) as verdicts:
                usable = select_usable_verdicts(verdicts.read_rows(), all_tests)
                rows = [usable[program.digest] for program in programs if program.digest in usable]
                if rows:
                    _print_line(messages, f"{len(rows)} verdicts are in {output} already")
                missing = [program for program in programs if program.digest not in usable]
                graded = grade_solutions(missing, sandbox, verdicts, all_tests)
                if missing:
                    title = f"grading ({tier})"
                    rows += track(graded, title, total=len(missing), console=messages)
    except (UserError, SandboxError) as error:
        _print_line(messages, str(error), "red")
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        _print_line(messages, "interrupted; verdicts are kept: rerun the command to resume")
        raise typer.Exit(130) from None
    totals = count_lines(rows, bad_solutions, problem_file, all_tests)
    if as_json:
        typer.echo(json.dumps(totals.to_json()))
    else:
        console, speed = Console(), sandbox.calibration
        console.print(make_totals_table(totals))
        _print_line(
            console,
            f"verdicts: {output}; isolation: {tier}; calibration: "
            f"{'unknown' if speed is None else format_decimal(speed, 2)}",
        )
    if not totals.is_complete:
        raise typer.Exit(1)


def _print_line(console: Console, text: str, style: str = "") -> None:
    """Print one line as it is: without markup, highlighting or wrapping."""
    from verl_pipeline.errors import escape_controls

    text = escape_controls(text)
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
