"""``verl-pipeline doctor --run``: from the words of the command line to the exit code.

Invariants:
* What is wrong with the command ends it before anything starts: one line a fault, exit code 2.
* Whatever way it ends, no process of the run is left, and no file but the log of a run that failed.
"""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf
from rich.console import Console
from rich.text import Text

from verl_pipeline.acceptance import place
from verl_pipeline.acceptance.checks import list_rows
from verl_pipeline.acceptance.child_run import train
from verl_pipeline.acceptance.plan import (
    STALENESS,
    Plan,
    list_default_pools,
    list_overrides,
    make_plan,
)
from verl_pipeline.acceptance.report import print_report
from verl_pipeline.acceptance.rows import Verdict
from verl_pipeline.entry_checks import EXIT_BAD_CONFIG, Command, compose_command, refuse
from verl_pipeline.overrides import MODE_FIELD
from verl_pipeline.testing.runs import OUTPUT
from verl_pipeline.trainer.pipeline_config import TRAINER_MODE

CPU_OVERLAY = "+verl_pipeline=cpu"


def run_acceptance(words: Sequence[str], console: Console, *, cpu: bool, keep: bool) -> int:
    """Train the tiny model on the settings of ``words``, print the table, return the exit code.

    Args:
        words: what would follow ``python -m verl_pipeline.main``.
        cpu: add the overlay for CPUs.
        keep: keep the folder of the run in any case.

    Raises:
        SystemExit: something is wrong with the command or this machine; it was printed.
    """
    command = compose_command(
        [*words, *([CPU_OVERLAY] if cpu and CPU_OVERLAY not in words else [])]
    )
    given = {override.lstrip("+~").partition("=")[0] for override in command.overrides}
    pools = list_default_pools(command.config, given)
    if pools:
        command = compose_command([*command.options, *command.overrides, *pools])
    is_place_given = place.LOCAL_DIR in given
    faults = [
        _find_fault_of_mode(command, given),
        place.find_fault_of_nodes(command.config, is_place_given),
        place.find_shortage(command.config),
    ]
    if any(faults):
        refuse(*filter(None, faults))
    plan = make_plan(command.config)
    try:
        folder = place.make_folder(command.config, is_place_given)
    except OSError as error:
        refuse(f"{place.LOCAL_DIR}: {error}; name a folder that can be written to")
    try:
        _print_plan(console, command, plan, folder)
        with console.status("writing the test's model and data"):
            place.write_inputs(plan, folder)
        own = list_overrides(command.config, plan, folder)
        outcome = train(folder, [*command.options, *command.overrides, *own], plan, console)
        if outcome.run.returncode == EXIT_BAD_CONFIG and outcome.refusals:
            refuse(*outcome.refusals, *_list_hints(command, outcome.refusals))
        rows = list_rows(outcome, plan)
    except BaseException:
        place.remove_folder(folder)
        raise
    has_failed = any(row.verdict is Verdict.FAILED for row in rows)
    kept = place.keep_folder(folder) if keep or has_failed else None
    if kept is None:
        place.remove_folder(folder)
    return print_report(console, rows, kept)


def _find_fault_of_mode(command: Command, given: set[str]) -> str:
    """Why the test is not of the trainer mode that the command names, in one line, or ""."""
    mode = OmegaConf.select(command.config, MODE_FIELD)
    if MODE_FIELD not in given or mode == TRAINER_MODE:
        return ""
    return f"{MODE_FIELD}={mode}: doctor --run tests {TRAINER_MODE}; leave it out"


def _list_hints(command: Command, refusals: Sequence[str]) -> list[str]:
    """What the command could have been meant to do."""
    is_cpu_run = any(override.lstrip("+") == CPU_OVERLAY[1:] for override in command.overrides)
    if not is_cpu_run and any("GPU slots: " in line for line in refusals):
        return ["to test on CPUs, add --cpu"]
    return []


def _print_plan(console: Console, command: Command, plan: Plan, folder: Path) -> None:
    config = command.config
    trainer, rollout = config.trainer, config.actor_rollout_ref.rollout
    lines = [
        f"pools: {trainer.nnodes} x {trainer.n_gpus_per_node} train, {rollout.nnodes} x "
        f"{rollout.n_gpus_per_node} sample with {rollout.name}; {plan.steps} steps of "
        f"{plan.prompts} x {plan.samples} responses at staleness {STALENESS}",
        "model, data, reward, batch and lengths are the test's; all other settings are yours",
        f"log: {folder / OUTPUT}",
    ]
    if address := place.find_existing_ray(config):
        lines.append(
            f"Ray at {address} may have nodes on other machines: they must see {folder}, else "
            f"give {place.LOCAL_DIR}=<a folder that they share>"
        )
    for line in lines:
        console.print(Text(line), soft_wrap=True)
