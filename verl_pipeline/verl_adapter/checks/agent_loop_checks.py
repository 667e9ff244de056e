"""Agent loops and tools that a run names: they exist.

Invariant: the user's tools are loaded as verl's agent loop workers load them, and never called.
"""

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from verl_pipeline.input_files import InputError, read_config
from verl_pipeline.overrides import suggest_name
from verl_pipeline.trainer.pipeline_config import ROLLOUT, ConfigError
from verl_pipeline.verl_adapter.checks.check_report import Findings, describe_exception
from verl_pipeline.verl_adapter.checks.code_checks import LOOPS_FILE
from verl_pipeline.verl_adapter.checks.value_checks import EXTERNAL_LIB

DEFAULT_LOOP = f"{ROLLOUT}.agent.default_agent_loop"
TOOLS_FILE = f"{ROLLOUT}.multi_turn.function_tool_path"


def check_agent_loop_names(config: DictConfig) -> Findings:
    """The agent loop of rows that name none exists."""
    # Our own trainer checks with this module, and is imported with verl's.
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry

    if OmegaConf.select(config, EXTERNAL_LIB) is not None:
        return  # it may register more, in the processes that import it
    name = OmegaConf.select(config, DEFAULT_LOOP)
    known = {*_agent_loop_registry, *_list_own_loops(config)}
    if name is not None and name not in known:
        yield ConfigError(f"{DEFAULT_LOOP}={name}: unknown; {suggest_name(str(name), known)}")


def _list_own_loops(config: DictConfig) -> list[str]:
    path = OmegaConf.select(config, LOOPS_FILE)
    if path is None:
        return []
    try:
        entries = OmegaConf.to_container(read_config(Path(os.path.expanduser(path))), resolve=False)
    except (InputError, OSError):
        return []  # the check of the agent loops says so
    return [
        str(entry["name"])
        for entry in (entries if isinstance(entries, list) else [entries])
        if isinstance(entry, dict) and "name" in entry
    ]


def check_function_tools(config: DictConfig) -> Findings:
    """The file of tools can be imported, and has some."""
    from verl.tools.function_tool import load_function_tools_from_path

    path = OmegaConf.select(config, TOOLS_FILE)
    if path is None or not os.path.isfile(str(path)):
        return  # the check of the files says so
    try:
        tools = load_function_tools_from_path(str(path))
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        yield ConfigError(
            f"{TOOLS_FILE}={path}: cannot be loaded ({describe_exception(error)}); correct it"
        )
        return
    if not tools:
        yield ConfigError(
            f"{TOOLS_FILE}={path}: has no tools; put @function_tool of verl.tools.function_tool "
            "over each"
        )
