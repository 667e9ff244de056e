"""Chooses the grader of each row in verl's schema, by its ``data_source``.

Invariants:
* Programs run in our sandbox only: a source whose responses verl's scorer would run or evaluate
  gets our reader, or is refused.
* A row whose grader is unknown is an error that names its source and the fix, before any model
  loads.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.evaluation.reward_functions import RewardFunction
from verl_pipeline.evaluation.suggestions import suggest_name
from verl_pipeline.evaluation.task import TaskItem
from verl_pipeline.grading.readers import READERS
from verl_pipeline.verl_adapter.rewards.scored_response import compares_text, executes_response
from verl_pipeline.verl_adapter.settings.run_configuration import RunConfigError, read_run_reward

GRADER = "options.parquet.grader"
# verl's names of sources for which our readers have others.
_READERS_BY_VERL_NAME = {"codecontests": "code_contests"}
# What a run's reward function is in an evaluation, which has limits and isolation of its own.
_OWN_REWARDS = {
    "pkg://verl_pipeline.rewards.code": "code",
    "pkg://verl_pipeline.rewards.math": "math",
}
VERL = RewardFunction()


@dataclass(frozen=True)
class RowGrader:
    """Chooses the grader of rows.

    Attributes:
        kind: ``auto``, ``code``, ``math``, ``verl`` or ``function``.
        reader: name of the reader of all rows; empty: ``data_source`` names it.
        function: with ``kind=function``, the reward function.
        notes: limits of the scores that do not depend on rows.
    """

    kind: str
    reader: str = ""
    function: RewardFunction = VERL
    notes: Sequence[str] = ()

    def choose(self, data_source: str) -> str | RewardFunction | None:
        """Return the name of a reader, a reward function, or None for the maths reward.

        Raises:
            BadSetting: no grader is known for the source.
        """
        if self.kind == "math":
            return None
        if self.kind == "function":
            return self.function
        reader = self.reader or _READERS_BY_VERL_NAME.get(data_source, data_source)
        if reader in READERS and (self.kind != "verl" or executes_response(data_source)):
            return reader
        if self.kind != "code" and compares_text(data_source):
            return VERL
        readers = ", ".join(sorted(READERS))
        if self.kind != "code" and executes_response(data_source):
            raise BadSetting(
                f"data_source={data_source!r}: verl's scorer would evaluate responses as Python "
                f"outside the sandbox; set {GRADER}=math if ground_truth is an answer that "
                f"responses box, or options.parquet.source to one of {readers} if it has tests"
            )
        unknown = {"code": "no reader", "verl": "verl's default scorer does not know it"}
        cause = unknown.get(self.kind, "no reader, and verl's default scorer does not know it")
        raise BadSetting(
            f"data_source={data_source!r}: {cause}; set {GRADER}=FILE.py:FUNCTION for the run's "
            f"reward function, {GRADER}=math if ground_truth is an answer that responses box, or "
            f"options.parquet.source to one of {readers} if it has tests"
        )

    def list_notes(self, items: Sequence[TaskItem]) -> list[str]:
        """Return what grades the items, where that is not plain from the settings."""
        notes = list(self.notes)
        sources = sorted({item.tags["source"] for item in items if item.problem})
        if sources and self.kind == "verl":
            notes.append(
                f"{', '.join(sources)}: verl's scorer would run programs outside the sandbox; our "
                "readers and the sandbox grade them"
            )
        return notes


def choose_grader(
    grader: str, source: str, reward_kwargs: Mapping[str, Any], run_config: str
) -> RowGrader:
    """Return the grader that the options of the task ``parquet`` name.

    Args:
        grader: ``auto``: each row's reader, else verl's scorer; ``code``: readers only; ``math``:
            the maths reward; ``verl``: verl's scorer by ``data_source``; or the function of
            ``reward.custom_reward_function``: ``FILE.py:NAME`` or ``pkg://module:NAME``, where
            ``:compute_score`` may be left out, as verl's default.
        source: reader of all rows.
        reward_kwargs: as in ``reward.custom_reward_function``.
        run_config: the run's configuration (``.hydra/config.yaml``), whose reward is used.

    Raises:
        BadSetting: an unknown grader, reader or file, or options that contradict each other.
    """
    notes: list[str] = []
    if run_config:
        if grader != "auto" or reward_kwargs:
            other = "options.parquet.reward_kwargs" if reward_kwargs else f"{GRADER}={grader}"
            raise BadSetting(f"options.parquet.run_config: {other} is set; remove one")
        try:
            run = read_run_reward(Path(run_config))
        except RunConfigError as error:
            raise BadSetting(f"options.parquet.run_config={error}") from error
        grader = f"{run.path}:{run.name}" if run.path else "auto"
        grader = _OWN_REWARDS.get(run.path or "", grader)
        source = source or (run.kwargs.get("source") or "" if grader == "code" else "")
        reward_kwargs = {} if grader in ("auto", "code", "math") else run.kwargs
        if run.manager != "naive":
            notes.append(
                f"the run's reward manager {run.manager} may change rewards, e.g. by their length; "
                "the evaluation takes them as the reward function gives them"
            )
    grader = _OWN_REWARDS.get(_split_function(grader)[0], grader)
    if source and source not in READERS:
        raise BadSetting(f"options.parquet.source={source!r}: must be one of {', '.join(READERS)}")
    if source and grader not in ("auto", "code"):
        raise BadSetting(
            f"options.parquet.source: needs no reader with {GRADER}={grader}; remove it"
        )
    kinds = ("auto", "code", "math", "verl")
    if grader in kinds:
        if reward_kwargs:
            raise BadSetting(
                f"options.parquet.reward_kwargs: {GRADER}={grader} takes none; name a function"
            )
        return RowGrader(grader, source, notes=notes)
    path, name = _split_function(grader)
    if not path.startswith("pkg://") and not path.endswith(".py") and "/" not in path:
        raise BadSetting(
            f"{GRADER}={grader!r}: {suggest_name(grader, kinds)}name {', '.join(kinds)}, "
            "FILE.py:FUNCTION or pkg://MODULE:FUNCTION"
        )
    function = RewardFunction(path, name, dict(reward_kwargs), _hash_file(path))
    return RowGrader("function", function=function, notes=notes)


def _split_function(text: str) -> tuple[str, str]:
    """Return path and name of ``FILE.py:NAME`` or ``pkg://module:NAME``."""
    path, _colon, name = text.rpartition(":")
    return (path, name) if path and name.isidentifier() else (text, "compute_score")


def _hash_file(path: str) -> str | None:
    """Return the SHA-256 of a function's file; None for a module.

    Raises:
        BadSetting: the file cannot be read.
    """
    if path.startswith("pkg://"):
        return None
    try:
        return hashlib.sha256(Path(path.removeprefix("file://")).read_bytes()).hexdigest()
    except OSError as error:
        raise BadSetting(
            f"{GRADER}={path}: {error.strerror}; name FILE.py:FUNCTION or pkg://MODULE:FUNCTION"
        ) from error
