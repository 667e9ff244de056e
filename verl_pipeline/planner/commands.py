"""The command ``plan``.

Invariants:
* Standard output has the answer only; progress and messages go to standard error.
* The file of ``--json`` has every number as it is, and is written last.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from verl_pipeline.path_options import path_option


def run_plan(
    profile: Annotated[
        Path,
        path_option(help="Profile of the cluster and its work: a YAML file, or a name of --list."),
    ] = Path("deepcoder_code_8xa100"),
    gpus: Annotated[
        int | None, typer.Option(min=1, max=65_536, help="GPUs, instead of the profile's.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Rollout and trainer GPUs, as 4:12; default: the best of all."),
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0.0, max=1e6, help="Price of a GPU-hour.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Workloads drawn for each plan.")] = 5,
    json: Annotated[Path | None, path_option(help="File for all numbers, as JSON.")] = None,
    list_names: Annotated[
        bool, typer.Option("--list", help="List the package's profiles and exit.")
    ] = False,
) -> None:
    """Predict whether pipelining pays on a cluster, and with which split and staleness.

    A simulation of every schedule on the same drawn lengths: no GPU, no model, under a minute for
    batches of up to about a thousand trajectories. The answer may be to stay with sync.

    Exit code 2: the profile cannot be simulated, or the file cannot be written.

    docs/when-it-pays.md explains the model and where it is wrong.
    """
    from verl_pipeline.errors import UserError
    from verl_pipeline.outputs.files import (
        prepare_target,
        refuse_foreign_text,
        refuse_inputs,
        write_json,
    )
    from verl_pipeline.planner.plan_report import (
        MARK,
        describe_profiles,
        list_lines,
        make_report,
        make_table,
    )
    from verl_pipeline.planner.profile_reader import find_profile, load_profile

    if list_names:
        typer.echo("\n".join(describe_profiles()))
        return
    messages = Console(stderr=True, soft_wrap=True)
    try:
        if json is not None:
            refuse_foreign_text(json, MARK, "a plan of verl-pipeline plan")
            refuse_inputs(json, "--json", {"--profile": find_profile(profile)})
            prepare_target(json)
        loaded = load_profile(profile)
        with messages.status("simulating") as status:
            report = make_report(
                loaded,
                gpus=gpus,
                split=split,
                price=price,
                seeds=seeds,
                show=lambda name: status.update(f"simulating {name}"),
            )
        if json is not None:
            write_json(json, report.to_json())
    except UserError as error:
        from verl_pipeline.errors import show_line

        messages.print(show_line(str(error)), style="red", markup=False, highlight=False)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        messages.print("interrupted; nothing was written")
        raise typer.Exit(130) from None
    for line in list_lines(report):
        typer.echo(line)
    Console().print(make_table(report))
