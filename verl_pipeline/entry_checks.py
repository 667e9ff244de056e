"""Looks at a command of either entry point before anything is started.

Both go through Hydra's own extension points, so that verl's entry needs no patch:
:func:`refuse_wrong_command` is called by our search path plugin, before Hydra composes the
configuration; :class:`CheckOnly` is a callback that ``hydra/callbacks=check_only`` adds.

Invariants:
* A command of verl's that chooses nothing of ours is left alone.
* What is refused is printed one line a setting, all at once, with exit code 2.
* ``check_only`` starts nothing and writes no file.
"""

import contextlib
import copy
import logging
import os
import sys
import traceback
import warnings
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console

from verl_pipeline import overrides
from verl_pipeline.entry_points import OUR_ENTRY, PRIMARY, VERLS_ENTRY, find_entry
from verl_pipeline.errors import show_line
from verl_pipeline.input_files import InputError, read_config
from verl_pipeline.standard_streams import exit_if_refused, open_streams
from verl_pipeline.trainer.pipeline_config import PIPELINE_KEY, ConfigError

if TYPE_CHECKING:  # verl takes seconds to import
    from verl_pipeline.verl_adapter.checks.check_report import CheckReport
    from verl_pipeline.verl_adapter.entry.run_plan import Plan

EXIT_OK, EXIT_BROKEN, EXIT_BAD_CONFIG = 0, 1, 2
CHECK_ONLY = "hydra/callbacks=check_only"
RESTARTS = f"{PIPELINE_KEY}.restarts"
NEVER_CHECKED = (
    "Ray: whether the cluster has the CPU slots and devices that the pools ask for",
    "other nodes: their devices, files and packages",
    "the model's weights and tokenizer, and whether model and batches fit into memory",
    "the rows' contents, and how many prompts verl's length filter leaves",
    "the reward: it was imported, and not called",
)


@dataclass(frozen=True)
class Command:
    """A command line of our entry point.

    Attributes:
        options: those of Hydra that choose the primary configuration, as words.
        config: what Hydra composes.
    """

    options: list[str]
    overrides: list[str]
    config: DictConfig


def compose_command(words: Sequence[str]) -> Command:
    """Read what would follow ``python -m verl_pipeline.main``; ends the program if it is wrong."""
    args, unknown = get_args_parser().parse_known_intermixed_args(list(words))
    names = ("config_dir", "config_name")
    given = {name: value for name, value in vars(args).items() if value and name != "overrides"}
    others = [f"--{name.replace('_', '-')}" for name in given if name not in names]
    if wrong := [*unknown, *others]:
        refuse(f"{' '.join(wrong)}: not an option of this command; leave it out")
    search_path = create_config_search_path("pkg://verl_pipeline.config")
    config = _compose(search_path, args, PRIMARY[OUR_ENTRY])
    options = [
        word
        for name in names
        if name in given
        for word in (f"--{name.replace('_', '-')}", given[name])
    ]
    return Command(options, args.overrides, config)


def refuse_wrong_command(search_path: ConfigSearchPath) -> None:
    """End the program if it is one of our entry points and its overrides cannot work.

    verl's entry is looked at only if the command chooses a mode or overlay of ours. In the modes
    of ours it then gets the checks of settings, too, which ``verl_pipeline.main`` makes by itself.
    """
    entry = find_entry()
    if entry is None or GlobalHydra.instance().is_initialized():
        return
    args, _ = get_args_parser().parse_known_args()
    if args.multirun or args.cfg or args.help or args.hydra_help or args.info:
        return
    if entry == VERLS_ENTRY and not any(map(overrides.names_ours, args.overrides)):
        return
    if args.shell_completion or args.experimental_rerun:
        return
    config = _compose(search_path, args, PRIMARY[entry])
    if entry == VERLS_ENTRY and OmegaConf.select(config, RESTARTS):
        refuse(
            f"{RESTARTS}: only python -m {OUR_ENTRY} starts a run again; use it, or leave this out"
        )
    if entry == VERLS_ENTRY and CHECK_ONLY not in args.overrides:
        mode = OmegaConf.select(config, overrides.MODE_FIELD)
        if overrides.names_ours(f"{overrides.MODE_FIELD}={mode}"):
            try:
                _examine(config).raise_errors()
            except ConfigError as error:
                refuse(*error.lines)


def _compose(search_path: ConfigSearchPath, args: Namespace, primary: str) -> DictConfig:
    """What Hydra is about to compose; ends the program if it cannot."""
    path = copy.deepcopy(search_path)
    if args.config_dir is not None:
        _check_config_folder(Path(args.config_dir), args.config_name or primary)
        folder = f"file://{Path(args.config_dir).resolve()}"
        path.append(provider="command-line", path=folder)
    path.append(provider="schema", path="structured://")
    Hydra.create_main_hydra2(task_name="check", config_search_path=path)
    try:
        return overrides.compose_overrides(args.config_name or primary, args.overrides)
    except overrides.ComposeError as error:
        refuse(*error.lines)
    finally:
        GlobalHydra.instance().clear()


def _check_config_folder(folder: Path, name: str) -> None:
    """End the program if the user's folder or the primary configuration in it cannot be read."""
    if not os.path.isdir(folder):
        refuse(show_line(f"--config-dir {folder}: no such folder; correct the path"))
    file = folder / (name if name.endswith(".yaml") else f"{name}.yaml")
    if not os.path.lexists(file):
        return  # it may be one of ours or of verl's
    try:
        if not OmegaConf.is_dict(read_config(file)):
            refuse(show_line(f"{file}: expected settings by name, as in trainer: {{nnodes: 1}}"))
    except InputError as error:
        refuse(show_line(str(error)))


def _examine(config: DictConfig) -> "CheckReport":
    from verl_pipeline.verl_adapter.checks.check_list import examine_run
    from verl_pipeline.verl_adapter.entry.run_entry import choose_device

    with contextlib.redirect_stdout(sys.stderr):  # verl prints here
        choose_device(config)
        return examine_run(config)


def refuse(*lines: str) -> NoReturn:
    """Print each line as an error, and end the program."""
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(EXIT_BAD_CONFIG)


class CheckOnly(Callback):
    """Checks the run, prints its plan and ends the program before Hydra calls it."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Ends with :data:`EXIT_OK`, or with :data:`EXIT_BAD_CONFIG` if the run cannot work."""
        logging.disable(logging.WARNING)  # verl's, on platforms and engines that are not used
        warnings.simplefilter("ignore")
        open_streams()  # verl's entry has not
        try:
            sys.exit(self._check(config))
        except Exception as error:
            if isinstance(error, OSError):
                exit_if_refused(error)
            # Hydra would turn it into a warning and start the run.
            traceback.print_exc()
            sys.exit(EXIT_BROKEN)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        refuse("--check looks at one run; leave --multirun out")

    def _check(self, config: DictConfig) -> int:
        from verl_pipeline.verl_adapter.entry.run_plan import build_plan

        config = copy.deepcopy(config)
        # Unresolved: an override may hold a reference, even to nothing.
        given = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        with open_dict(config):
            del config["hydra"]
        report = _examine(config)
        print_check(build_plan(config, report), report, overrides.list_repeated(given))
        return EXIT_BAD_CONFIG if report.errors else EXIT_OK


def print_check(plan: "Plan", report: "CheckReport", repeated: Sequence[str]) -> None:
    """Print the plan, what was not checked, and the errors (these on standard error)."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for title, lines in plan.items():
        console.print(title, style="bold")
        for line in lines:
            console.print(f"  {line}")
    notes = [*report.not_checked, *report.out_of_reach, *NEVER_CHECKED]
    console.print("not checked", style="bold")
    for note in notes:
        console.print(f"  {note}")
    if repeated:
        console.print("given more than once (the last one counts)", style="bold")
        for override in repeated:
            console.print(f"  {override}")
    count = len(report.errors)
    verdict = f"{count} error{'s' * (count != 1)}" if count else "no errors"
    console.print(f"{verdict}; nothing was started")
    sys.stdout.flush()
    for line in report.errors:
        print(f"error: {line}", file=sys.stderr)
