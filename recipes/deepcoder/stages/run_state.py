"""What a run has done: ``<output>/stages.json``, from which the same command goes on.

Invariants:
* The file is whole at every moment, and one runner at a time writes it.
* ``start`` of a stage plus ``batch`` times its steps is ``start`` of the next: no prompt of the
  stream is left out or trained twice.
* What cannot change under a run (model, prompts and their order) is compared by content, and
  refused by name.
"""

import contextlib
import fcntl
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from verl_pipeline.evaluation.errors import Refused
from verl_pipeline.evaluation.store import write_json

VERSION = 1
# A training that lost its runner needs up to 25 s (verl_pipeline.main.SHUTDOWN_S) to end.
OWNER_S = 60.0
# What decides which prompts there are, and their order.
DATA = (
    "data.max_prompt_length",
    "data.filter_overlong_prompts",
    "data.train_max_samples",
    "data.seed",
)
# Settings that say where things are; output and data may be moved, and data are compared by
# content.
PLACES = (
    "trainer.default_local_dir",
    "trainer.experiment_name",
    "data.train_files",
    "data.val_files",
)


class OtherRun(Refused):
    """The output belongs to a run with other settings; the message names them."""


@dataclass(frozen=True)
class Attempt:
    """One training process.

    Attributes:
        number: from 1.
        resumed_from: global step of the checkpoint it began with.
        exit_code: None while it runs, and if it was killed together with the runner.
    """

    number: int
    resumed_from: int
    exit_code: int | None = None


@dataclass(frozen=True)
class Record:
    """What is known of a stage.

    Attributes:
        first_step: global steps before it.
        start: prompts of the stream before it.
        batch: prompts a step.
        settings: its overrides by key.
        attempts: in order.
        ended_at: its last global step, once it is done.
        why: what ended it.
    """

    first_step: int
    start: int
    batch: int
    settings: Mapping[str, str]
    attempts: tuple[Attempt, ...] = ()
    ended_at: int | None = None
    why: str | None = None

    @property
    def status(self) -> Literal["running", "done"]:
        return "running" if self.ended_at is None else "done"

    def consumed(self, step: int) -> int:
        """Prompts of the stream up to and with global step ``step``."""
        return self.start + (step - self.first_step) * self.batch


@dataclass
class State:
    """The content of ``stages.json``.

    Attributes:
        identity: what may not change under the run, see :func:`identity_of`.
        stages: those that have begun, in order.
    """

    identity: dict[str, Any]
    stages: dict[str, Record] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it atomically."""
        stages = {
            name: {**asdict(record), "status": record.status}
            for name, record in self.stages.items()
        }
        write_json(path, {"version": VERSION, "identity": self.identity, "stages": stages})


def load(path: Path) -> State | None:
    """What :meth:`State.save` wrote; None: nothing yet.

    Raises:
        OtherRun: the file is not of this version.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        version = content["version"]
        if version == VERSION:
            return State(
                content["identity"],
                {name: _record(given) for name, given in content["stages"].items()},
            )
    except (ValueError, KeyError, TypeError) as error:
        raise OtherRun(
            f"{path} cannot be read ({error!r}): restore it, or choose another --output"
        ) from error
    raise OtherRun(f"{path} is of version {version}, this is {VERSION}: choose another --output")


def _record(given: dict[str, Any]) -> Record:
    known = {key: value for key, value in given.items() if key != "status"}
    return Record(
        **{**known, "attempts": tuple(Attempt(**attempt) for attempt in given["attempts"])}
    )


def constants_of(config: DictConfig) -> dict[str, Any]:
    """Settings that may not change under a run nor between its stages, by key: whose weights are
    trained, what decides the stream of prompts, and what a checkpoint brings along (verl restores
    the optimizer's and schedule's settings).
    """
    optimizer = config.actor_rollout_ref.actor.optim
    keys = [
        "actor_rollout_ref.model.path",
        *DATA,
        *(
            f"actor_rollout_ref.actor.optim.{name}"
            for name in optimizer
            if name != "total_training_steps"
        ),
    ]
    found = {key: OmegaConf.select(config, key) for key in keys}
    return OmegaConf.to_container(OmegaConf.create(found), resolve=True)  # type: ignore[return-value]


def identity_of(config: DictConfig, files: Sequence[Path]) -> dict[str, Any]:
    """:func:`constants_of` the run, and its prompts.

    Args:
        files: of training prompts; their content counts, not their place.
    """
    return {
        "content of data.train_files": [_digest(path) for path in files],
        **constants_of(config),
    }


def check_identity(state: State, identity: Mapping[str, Any]) -> None:
    """Raises :class:`OtherRun` for what may not change under a run that has begun."""
    for name, value in identity.items():
        before = state.identity.get(name)
        if state.stages and before != value:
            raise OtherRun(
                f"{name}: the run began with {before}, now it is {value}; put it back, or choose "
                "another --output"
            )


def check_settings(name: str, record: Record, settings: Mapping[str, str]) -> None:
    """Refuse settings of a finished stage that differ from those it ran with.

    Raises:
        OtherRun: the first that does.
    """
    for key in [*record.settings, *settings]:
        if key in PLACES:
            continue
        before, now = record.settings.get(key), settings.get(key)
        if before != now:
            raise OtherRun(
                f"{key}: stage {name} is done, with {_given(before)}, now it is {_given(now)}; put "
                "it back, choose the stage to run with --stage, or another --output"
            )


def by_key(words: Sequence[str]) -> dict[str, str]:
    """Overrides by key; the last one of a key wins, as in hydra."""
    return {key: value for key, _, value in (word.lstrip("+~").partition("=") for word in words)}


@contextlib.contextmanager
def sole_runner(output: Path, console: Console) -> Iterator[IO[str]]:
    """While it lasts, no other runner writes below ``output``.

    A training that inherits the file keeps others out until it has ended as well.

    Raises:
        OtherRun: another runner, or its training, is still there after :data:`OWNER_S` seconds.
    """
    output.mkdir(parents=True, exist_ok=True)
    with open(output / ".lock", "w") as lock:
        deadline = time.monotonic() + OWNER_S
        said = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OtherRun(
                        f"{output}: another run is writing there; end it, or choose another "
                        "--output"
                    ) from None
            if not said:
                console.print(
                    f"{output} is in use; waiting up to {OWNER_S:.0f} s for it",
                    markup=False,
                    soft_wrap=True,
                )
                said = True
            time.sleep(0.5)
        yield lock


def _given(value: str | None) -> str:
    return "it not given" if value is None else value


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
