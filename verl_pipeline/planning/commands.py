"""The command ``plan``.

Invariants:
* Standard output has the answer only; progress and messages go to standard error.
* The files of ``--json`` and ``--html`` have every number as it is, and are written last. A file
  that is not the command's own is never replaced.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from verl_pipeline.path_options import path_option

# Of the table, where no terminal says its own.
WIDTH = 120
_WORK = "The work, instead of the profile's"
_CLUSTER = "A model on GPUs, instead of the profile's"


def run_plan(
    profile: Annotated[
        Path | None,
        path_option(
            "--profile",
            help="Profile of a cluster and its work: a YAML file, or a name of --list; default: "
            "deepcoder_code_8xa100.",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        path_option("--run", help="A run's folder: plan with what it measured, whatever its mode."),
    ] = None,
    scaling_run: Annotated[
        list[Path] | None,
        path_option(
            "--scaling-run",
            help="Folder of a run of the same model on another number of training devices, from "
            "which it follows how training scales; with --run, may be repeated.",
        ),
    ] = None,
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
    json: Annotated[
        Path | None, path_option("--json", help="File for all numbers, as JSON.")
    ] = None,
    html: Annotated[
        Path | None,
        path_option(
            "--html",
            help="File for a page with all of it, and a map of the gain around the profile.",
        ),
    ] = None,
    list_names: Annotated[
        bool, typer.Option("--list", help="List the package's profiles and exit.")
    ] = False,
    model: Annotated[
        Path | None,
        path_option(
            "--model",
            help="A model's config.json or its folder; with --gpu.",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(help="a100, h100, h200 or h20; with --model.", rich_help_panel=_CLUSTER),
    ] = None,
    tensor_parallel: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            help="GPUs of a rollout replica; default: the fewest that hold the model.",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    mfu: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1.0,
            help="Share of the FLOP/s that training reaches; default: 0.3, of an H20 0.5.",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    prompts: Annotated[
        int | None,
        typer.Option(min=1, max=65_536, help="Prompts in a batch.", rich_help_panel=_WORK),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="Samples of each prompt.", rich_help_panel=_WORK),
    ] = None,
    response_mean: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            max=1e8,
            help="Mean tokens of a response, before the limit cuts it.",
            rich_help_panel=_WORK,
        ),
    ] = None,
    response_sigma: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=10.0,
            help="Standard deviation of the logarithm of the tokens: 0.1 is even, 1.0 has a heavy "
            "tail.",
            rich_help_panel=_WORK,
        ),
    ] = None,
    response_limit: Annotated[
        float | None,
        typer.Option(min=1.0, max=1e8, help="Most tokens of a response.", rich_help_panel=_WORK),
    ] = None,
    prompt_mean: Annotated[
        float | None,
        typer.Option(min=1.0, max=1e8, help="Tokens of every prompt.", rich_help_panel=_WORK),
    ] = None,
    reward_s: Annotated[
        float | None,
        typer.Option(min=0.0, max=1e6, help="Seconds of every reward.", rich_help_panel=_WORK),
    ] = None,
) -> None:
    """Predict whether pipelining pays on a cluster, and with which split and staleness.

    A simulation of every schedule on the same drawn lengths: no GPU, no model, under a minute for
    batches of up to about a thousand trajectories. The answer may be to stay with sync.

    Exit code 2: the profile cannot be simulated, or a file cannot be read or written.

    docs/planner/model.md explains the model, docs/planner/accuracy.md where it is wrong.
    """
    from verl_pipeline.errors import UserError
    from verl_pipeline.planner.plan_report import (
        describe_profiles,
        list_lines,
        make_report,
        make_table,
    )
    from verl_pipeline.planner.work_changes import WorkChanges
    from verl_pipeline.planning.sources import Source, make_estimate

    if list_names:
        typer.echo("\n".join(describe_profiles()))
        return
    source = Source(
        profile=profile,
        run=run,
        scaling_runs=tuple(scaling_run or ()),
        model=model,
        gpu=gpu,
        gpus=gpus,
        tensor_parallel=tensor_parallel,
        mfu=mfu,
        changes=WorkChanges(
            prompts=prompts,
            samples=samples,
            response_mean=response_mean,
            response_sigma=response_sigma,
            response_limit=response_limit,
            prompt_mean=prompt_mean,
            reward_s=reward_s,
        ),
    )
    messages = Console(stderr=True, soft_wrap=True)
    try:
        _check_outputs(json, html, source.list_inputs())
        with messages.status("reading") as status:
            report = make_report(
                make_estimate(source),
                gpus=gpus,
                split=split,
                price=price,
                seeds=seeds,
                show=lambda name: status.update(f"simulating {name}"),
                with_map=html is not None,
            )
        if json is not None:
            from verl_pipeline.outputs.files import write_json

            write_json(json, report.to_json())
        if html is not None:
            from verl_pipeline.report.plan_page import write_plan_page

            write_plan_page(html, report)
    except UserError as error:
        from verl_pipeline.errors import show_line

        messages.print(show_line(str(error)), style="red", markup=False, highlight=False)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        messages.print("interrupted; nothing was written")
        raise typer.Exit(130) from None
    for line in list_lines(report):
        typer.echo(line)
    Console(width=None if sys.stdout.isatty() else WIDTH).print(make_table(report))
    if html is not None:
        messages.print(f"wrote {html}", markup=False, highlight=False)


def _check_outputs(json: Path | None, html: Path | None, inputs: Mapping[str, Path]) -> None:
    """Refuse files that hold something else, before anything is simulated.

    Raises:
        OutputError: they do, are read by the command, or are the same.
    """
    from verl_pipeline.outputs.errors import OutputError
    from verl_pipeline.outputs.files import prepare_target
    from verl_pipeline.planner.plan_report import MARK

    if json is not None:
        _check_output("--json", json, MARK, "a plan of verl-pipeline plan", inputs)
    if html is not None:
        from verl_pipeline.report.plan_page import PAGE_MARK

        _check_output("--html", html, PAGE_MARK, "a page of verl-pipeline plan", inputs)
        if json is not None and prepare_target(html) == prepare_target(json):
            raise OutputError(f"--json and --html both name {html}; give each its own file")


def _check_output(
    option: str, path: Path, mark: str, title: str, inputs: Mapping[str, Path]
) -> None:
    from verl_pipeline.outputs.errors import OutputError
    from verl_pipeline.outputs.files import (
        prepare_target,
        refuse_foreign_text,
        refuse_inputs,
    )

    try:
        refuse_foreign_text(path, mark, title, option)
        refuse_inputs(path, option, inputs)
        prepare_target(path)
    except OutputError as error:
        raise OutputError(str(error) if option in str(error) else f"{option} {error}") from error
