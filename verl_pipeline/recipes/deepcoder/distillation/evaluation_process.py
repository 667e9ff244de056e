"""An evaluation in a process of its own: several in one would share vLLM's state and memory.

Invariant: the evaluation ends with this process.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from verl_pipeline.errors import UserError
from verl_pipeline.evaluation.eval_settings import EvalConfig
from verl_pipeline.evaluation.results import EXIT_INCOMPLETE, read_results
from verl_pipeline.outputs.files import write_text
from verl_pipeline.processes import end_with_parent


class EvaluationFailed(UserError):
    """An evaluation could not be made; its own message stands above."""


def evaluate(config: EvalConfig, console: Console) -> dict[str, Any]:
    """Start or resume an evaluation, and return the content of its ``results.json``.

    The settings stand beside the folder, in ``<folder>.yaml``. A complete evaluation is not
    repeated: the caller answers for it that the folder is of these settings.

    Raises:
        EvaluationFailed: it was refused or failed.
    """
    folder = Path(config.output)
    if (folder / "results.json").exists() and is_complete(results := read_results(folder), config):
        return results
    settings = folder.with_suffix(".yaml")
    write_text(settings, OmegaConf.to_yaml(OmegaConf.structured(config)))
    command = [sys.executable, "-m", "verl_pipeline.cli", "eval", "--config", str(settings)]
    code = subprocess.run(command, stdin=subprocess.DEVNULL, preexec_fn=end_with_parent).returncode
    if code == EXIT_INCOMPLETE:
        console.print(
            f"{folder.name}: some samples are missing or ungraded; the same command repeats them",
            style="yellow",
            markup=False,
            highlight=False,
        )
    elif code:
        raise EvaluationFailed(f"{folder}: the evaluation ended with exit code {code} (see above)")
    return read_results(folder)


def is_complete(results: dict[str, Any], config: EvalConfig) -> bool:
    """Whether every sample that ``config`` asks for is generated and graded."""
    [task] = results["tasks"]
    counts = task["counts"]
    is_whole = counts["failed"] == counts["infrastructure"] == 0
    return is_whole and task["sampling"]["n"] == config.sampling.n
