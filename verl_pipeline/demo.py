"""The command ``demo``: what each schedule does with the same work, in seconds and without a GPU.

Invariant: the page is written last; a file that is not the command's own is never replaced.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from verl_pipeline.path_options import path_option

DEFAULT_PROFILE = Path("deepcoder_code_8xa100")
DEFAULT_PAGE = Path("outputs/demo/schedules.html")


def run_demo(
    profile: Annotated[
        Path,
        path_option("--profile", help="A profile, by file or by name of `plan --list`."),
    ] = DEFAULT_PROFILE,
    seed: Annotated[int, typer.Option(min=0, help="Of the drawn lengths.")] = 0,
    output: Annotated[Path, path_option(help="The page.")] = DEFAULT_PAGE,
) -> None:
    """Show what each schedule does with the same work, on emulated GPUs.

    verl's sync beside drained, rolling and in_flight: a table, and a page with who did what when.
    It takes some seconds, for batches of thousands of trajectories some minutes; without a model
    and without a GPU.

    Exit code 2: the profile cannot be simulated, or the page cannot be written.
    """
    from verl_pipeline.emulated.schedule_runs import run_schedules
    from verl_pipeline.errors import UserError, show_line
    from verl_pipeline.planner.profile_reader import load_profile
    from verl_pipeline.report.demo_page import (
        COLUMNS,
        describe_schedule,
        make_sentence,
        refuse_other_file,
        write_demo_page,
    )

    messages = Console(stderr=True, soft_wrap=True)
    try:
        refuse_other_file(output)
        cluster = load_profile(profile)
        with messages.status("drawing lengths") as status:
            runs = run_schedules(cluster, seed, lambda name: status.update(f"running {name}"))
        write_demo_page(output, cluster, runs)
    except UserError as error:
        messages.print(show_line(str(error)), style="red", markup=False, highlight=False)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        messages.print("interrupted; nothing was written")
        raise typer.Exit(130) from None
    table = Table(title=f"{cluster.description} (emulated)", title_justify="left")
    for title, _name, kind in COLUMNS:
        table.add_column(title, justify="right" if kind else "left")
    for run in runs:
        row = describe_schedule(run)
        table.add_row(*(row[name] for _title, name, _kind in COLUMNS))
    Console().print(table)
    typer.echo(make_sentence(runs))
    messages.print(f"open {output} to see who did what when", markup=False, highlight=False)
