"""The state of a run, ``<output>/stages.json``, from which the same command resumes.

Invariants:
* The file is complete at every moment, and one runner at a time writes it.
* The first prompt of a stage plus its batch size times its steps is the first prompt of the next
  stage: no prompt of the stream is left out or trained twice.
* What must not change during a run (model, prompts and their order) is compared by content; the
  error names the setting.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any, Literal

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from verl_pipeline.errors import UserError
from verl_pipeline.outputs.files import write_json
from verl_pipeline.outputs.folders import FolderKind, claim_output
from verl_pipeline.recipes.deepcoder.data.row_files import hash_file
from verl_pipeline.recipes.deepcoder.stages.state_file import STATE_VERSION, read_state_file

STATE_FILE = "stages.json"
# A training whose runner was killed needs up to 25 s to end (verl_pipeline.main.SHUTDOWN_S).
LOCK_TIMEOUT_S = 60.0
TRAINING = FolderKind(
    "verl_pipeline.recipes.deepcoder.train", landmarks=(".lock", STATE_FILE), written=(STATE_FILE,)
)
# Settings that decide which prompts there are, and their order.
PROMPT_KEYS = (
    "data.max_prompt_length",
    "data.filter_overlong_prompts",
    "data.train_max_samples",
    "data.seed",
)
# Settings of locations: output and data may be moved; data files are compared by content.
LOCATION_KEYS = (
    "trainer.default_local_dir",
    "trainer.experiment_name",
    "data.train_files",
    "data.val_files",
)
# Attributes of StageRecord that have another name in stages.json.
_JSON_NAMES = {
    "first_prompt": "start",
    "batch_size": "batch",
    "overrides": "settings",
    "end_step": "ended_at",
    "end_reason": "why",
}


class RunMismatchError(UserError):
    """The output folder belongs to a run with other settings; the message names them."""


@dataclass(frozen=True)
class StageAttempt:
    """One training process of a stage.

    Attributes:
        number: from 1.
        resumed_from: global step of the checkpoint that it resumed from.
        exit_code: None while it runs, and if it was killed together with the runner.
    """

    number: int
    resumed_from: int
    exit_code: int | None = None


@dataclass(frozen=True)
class StageRecord:
    """What the state holds about a stage.

    Attributes:
        first_step: number of global steps before the stage.
        first_prompt: number of prompts of the stream before the stage.
        batch_size: prompts per step.
        overrides: the stage's overrides by key.
        attempts: its training processes in order.
        end_step: its last global step, once it is done.
        end_reason: what ended it.
    """

    first_step: int
    first_prompt: int
    batch_size: int
    overrides: Mapping[str, str]
    attempts: tuple[StageAttempt, ...] = ()
    end_step: int | None = None
    end_reason: str | None = None

    @property
    def status(self) -> Literal["running", "done"]:
        """``done`` once the stage has ended."""
        return "running" if self.end_step is None else "done"

    def count_prompts(self, step: int) -> int:
        """Return the number of prompts of the stream up to and including global step ``step``."""
        return self.first_prompt + (step - self.first_step) * self.batch_size

    def to_json(self) -> dict[str, Any]:
        """Return the record as ``stages.json`` stores it."""
        content = {_JSON_NAMES.get(name, name): value for name, value in asdict(self).items()}
        return {**content, "status": self.status}

    @classmethod
    def parse_json(cls, content: Mapping[str, Any]) -> "StageRecord":
        """Build a record from what :meth:`to_json` returned; other fields are left out."""
        values = {
            entry.name: content[_JSON_NAMES.get(entry.name, entry.name)] for entry in fields(cls)
        }
        names = [entry.name for entry in fields(StageAttempt)]
        attempts = [{name: one[name] for name in names} for one in content["attempts"]]
        return cls(**{**values, "attempts": tuple(StageAttempt(**one) for one in attempts)})


@dataclass
class RunState:
    """The content of ``stages.json``.

    Attributes:
        identity: what must not change during the run, see :func:`describe_identity`.
        stages: the stages that have begun, in order.
    """

    identity: dict[str, Any]
    stages: dict[str, StageRecord] = field(default_factory=dict)

    def write_file(self, path: Path) -> None:
        """Write the state by one rename."""
        stages = {name: record.to_json() for name, record in self.stages.items()}
        write_json(path, {"version": STATE_VERSION, "identity": self.identity, "stages": stages})


def load_state(path: Path) -> RunState | None:
    """Read what :meth:`RunState.write_file` wrote; None if there is no file yet.

    Raises:
        InputError: what stands there cannot be read.
        DamagedFileError: it is not a state.
        RunMismatchError: it is of another version.
    """
    if not os.path.lexists(path):
        return None
    content = read_state_file(path)
    if content["version"] != STATE_VERSION:
        raise RunMismatchError(
            f"{path}: version: {content['version']}, this is version {STATE_VERSION}; choose "
            "another --output"
        )
    stages = {name: StageRecord.parse_json(stage) for name, stage in content["stages"].items()}
    return RunState(content["identity"], stages)


def list_constant_settings(config: DictConfig) -> dict[str, Any]:
    """Return the settings that must not change during a run or between its stages, by key.

    They decide whose weights are trained, on which stream of prompts, and with which optimizer:
    verl restores the settings of optimizer and schedule from the checkpoint, so a change would be
    recorded but have no effect.
    """
    optimizer = config.actor_rollout_ref.actor.optim
    keys = [
        "actor_rollout_ref.model.path",
        *PROMPT_KEYS,
        *(
            f"actor_rollout_ref.actor.optim.{name}"
            for name in optimizer
            if name != "total_training_steps"
        ),
    ]
    values = {key: OmegaConf.select(config, key) for key in keys}
    return OmegaConf.to_container(OmegaConf.create(values), resolve=True)  # type: ignore[return-value]


def describe_identity(config: DictConfig, files: Sequence[Path]) -> dict[str, Any]:
    """Return the constant settings of a run, and the hashes of its training prompts.

    Args:
        config: verl's configuration.
        files: files of the training prompts; their content counts, not their location.
    """
    return {
        "content of data.train_files": [hash_file(path) for path in files],
        **list_constant_settings(config),
    }


def check_identity(state: RunState, identity: Mapping[str, Any]) -> None:
    """Refuse settings that must not change once a stage has begun.

    Raises:
        RunMismatchError: the message names the first setting that differs.
    """
    for name, value in identity.items():
        before = state.identity.get(name)
        if state.stages and before != value:
            raise RunMismatchError(
                f"{name}: the run began with {before}, now it is {value}; restore the value, or "
                "choose another --output"
            )


def check_finished_stage(name: str, record: StageRecord, overrides: Mapping[str, str]) -> None:
    """Refuse overrides of a finished stage that differ from those it was trained with.

    Raises:
        RunMismatchError: the message names the first override that differs.
    """
    for key in [*record.overrides, *overrides]:
        if key in LOCATION_KEYS:
            continue
        before, now = record.overrides.get(key), overrides.get(key)
        if before != now:
            raise RunMismatchError(
                f"{key}: stage {name} was trained with {_format_value(before)}, now it is "
                f"{_format_value(now)}; restore the value, name the stage to run with --stage, or "
                "choose another --output"
            )


def index_overrides(overrides: Sequence[str]) -> dict[str, str]:
    """Return overrides by key; of equal keys the last one wins, as in hydra."""
    parts = (override.lstrip("+~").partition("=") for override in overrides)
    return {key: value for key, _equals, value in parts}


@contextlib.contextmanager
def lock_output(output: Path, console: Console) -> Iterator[IO[bytes]]:
    """Keep other runners from writing below ``output`` for the duration of the context.

    A training that inherits the lock file keeps them out until it has ended as well.

    Yields:
        The open lock file.

    Raises:
        OutputError: the folder is not a run's, or another runner or its training still holds the
            lock after :data:`LOCK_TIMEOUT_S` seconds.
    """

    def notify() -> None:
        console.print(
            f"{output} is in use; waiting up to {LOCK_TIMEOUT_S:.0f} s for it",
            markup=False,
            soft_wrap=True,
        )

    with claim_output(output, TRAINING, wait_s=LOCK_TIMEOUT_S, notify=notify) as lock:
        yield lock


def _format_value(value: str | None) -> str:
    return "its default" if value is None else value
