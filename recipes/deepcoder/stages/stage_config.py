"""A run's stages and the hardware they run on, read from ``stages.yaml`` and
``hardware/<name>.yaml``.

Invariants:
* Every field is here, with its meaning; an unknown one is refused with the nearest name.
* What contradicts itself within the files is found here, before verl is imported. What needs verl's
  configuration, a model or data is found in :mod:`recipes.deepcoder.stages.stage_checks`.
"""

import difflib
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl_pipeline.evaluation.errors import Refused

FOLDER = Path(__file__).parents[1]
STAGES = FOLDER / "stages.yaml"
HARDWARE = FOLDER / "hardware"
REPRODUCE = ("ours", "described", "released")
# Metrics of a step's whole batch, before any filter.
TRUNCATED_SHARE = "filters/before/truncated_share"
REWARD = "filters/before/reward_mean"
# A run's `model` that stands for verl_pipeline.quickstart's.
QUICKSTART = "quickstart"


class BadStages(Refused):
    """A file of stages or hardware that cannot be; the message names file, field and fix."""


@dataclass
class TruncatedShare:
    """Ends a stage by the share of responses that the length limit cut off, before any filter.

    Attributes:
        above, below: the mean over the window beyond which the stage ends; one of them.
        window: steps.
    """

    above: float | None = None
    below: float | None = None
    window: int = 10


@dataclass
class Plateau:
    """Ends a stage when the mean of a metric over a window exceeds the window before by less than
    ``gain``.

    Attributes:
        metric: a name in ``metrics.jsonl``.
        window: steps.
        gain: in the metric's unit.
    """

    gain: float
    metric: str = REWARD
    window: int = 10


@dataclass
class Until:
    """Rules that end a stage before its last step, looked at whenever a checkpoint is complete; the
    first wins.
    """

    truncated_share: TruncatedShare | None = None
    plateau: Plateau | None = None


@dataclass
class Pool:
    """``nodes`` x ``devices`` on each."""

    nodes: int
    devices: int


@dataclass
class Pools:
    """Which devices train, which sample."""

    train: Pool
    rollout: Pool


@dataclass
class Stage:
    """One stage.

    Attributes:
        last_step: verl's global step after which it ends; steps count on over the stages.
        response_length: longest response, tokens.
        batch: prompts a step.
        mini_batch: prompts an update.
        samples: responses a prompt.
        tokens_per_device: longest micro-batch of an update, tokens on each device; with sequence
            parallelism a sequence may be as many times longer. None: micro-batches of a fixed
            number of rows.
        pools: how the devices are split.
        temperature: of sampling; None: GRPO+'s.
        until: rules that end it earlier.
        overrides: further settings of verl's, for this stage; not the optimizer's, which a
            checkpoint brings along.
    """

    last_step: int
    response_length: int
    batch: int
    mini_batch: int
    samples: int
    pools: Pools
    tokens_per_device: int | None = None
    temperature: float | None = None
    until: Until = field(default_factory=Until)
    overrides: list[str] = field(default_factory=list)


@dataclass
class Run:
    """Stages, and what they have in common.

    Attributes:
        model: folder or hub name of the model to start from; ``quickstart``: SmolLM2-135M-Instruct.
        data: folder of ``train.parquet`` and ``heldout.parquet``, unless the command names one.
        prompt_length: longest prompt, tokens; longer ones are left out.
        answer_prefix: what the model's chat template begins an answer with, see
            :mod:`verl_pipeline.rewards.code`.
        seed: of the prompts' order.
        learning_rate: constant.
        save_every, validate_every: steps; validate_every -1: never.
        overrides: further settings of verl's.
        stages: by name, in order.
    """

    model: str
    data: str
    prompt_length: int
    stages: dict[str, Stage]
    answer_prefix: str = ""
    seed: int = 1
    learning_rate: float = 1e-6
    save_every: int = 10
    validate_every: int = 10
    overrides: list[str] = field(default_factory=list)


@dataclass
class Hardware:
    """A machine or cluster.

    Attributes:
        run: of the file of stages, unless the command names one.
        device: ``cuda`` or ``cpu``.
        nodes, devices: nodes, and devices on each; on CPUs slots, each a process.
        tensor_parallel: devices of a rollout replica.
        sequence_parallel: devices that share a sequence in training (Ulysses).
        overrides: further settings of verl's.
    """

    run: str
    device: str
    nodes: int
    devices: int
    tensor_parallel: int = 1
    sequence_parallel: int = 1
    overrides: list[str] = field(default_factory=list)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown ``name``."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"


def load_runs(path: Path) -> dict[str, Run]:
    """The runs of a file of stages, by name.

    Raises:
        BadStages: no such file, an unknown field, a value of the wrong type, or a contradiction.
    """
    runs = {name: _read(Run, given, f"{path}: {name}") for name, given in _load(path).items()}
    for name, run in runs.items():
        _check_run(run, f"{path}: {name}")
    return runs


def load_hardware(name: str) -> Hardware:
    """The hardware profile ``name``, or that of the file ``name``.

    Raises:
        BadStages: as :func:`load_runs`.
    """
    known = sorted(path.stem for path in HARDWARE.glob("*.yaml"))
    path = HARDWARE / f"{name}.yaml" if name in known else Path(name)
    if path.suffix != ".yaml":
        raise BadStages(f"--hardware {name}: unknown; {nearest(name, known)} A file ends in .yaml")
    hardware = _read(Hardware, _load(path), str(path))
    if hardware.device not in ("cuda", "cpu"):
        raise BadStages(f"{path}: device={hardware.device}: must be cuda or cpu")
    _check_positive(
        hardware, ("nodes", "devices", "tensor_parallel", "sequence_parallel"), str(path)
    )
    return hardware


def run_of(runs: dict[str, Run], name: str, path: Path) -> Run:
    """The run ``name`` of those of the file ``path``.

    Raises:
        BadStages: there is none.
    """
    if name not in runs:
        raise BadStages(f"--run {name}: not in {path}; {nearest(name, runs)}")
    return runs[name]


def check_stage(run: Run, name: str | None) -> None:
    """Refuse the name of a stage that the run does not have; None is none."""
    if name is not None and name not in run.stages:
        raise BadStages(f"--stage {name}: unknown; {nearest(name, run.stages)}")


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadStages(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content:
        raise BadStages(f"{path}: must be a mapping of names, as in {STAGES}")
    return content


def _read(schema: type, given: Any, where: str) -> Any:
    _check_keys(schema, given, where)
    try:
        return OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(given))
        )
    except OmegaConfBaseException as error:
        raise BadStages(f"{where}: {error.full_key}: {str(error).splitlines()[0]}") from error


def _check_keys(kind: Any, given: Any, where: str) -> None:
    """Unknown and missing fields, at every depth; OmegaConf names neither the file nor a better
    name.
    """
    if get_origin(kind) is dict and isinstance(given, dict):
        for name, value in given.items():
            _check_keys(get_args(kind)[1], value, f"{where}.{name}")
    schema = next((one for one in (kind, *get_args(kind)) if is_dataclass(one)), None)
    if (
        schema is None
        or get_origin(kind) is dict
        or (given is None and type(None) in get_args(kind))
    ):
        return
    hints = get_type_hints(schema)
    if not isinstance(given, dict):
        raise BadStages(f"{where}={given}: must be a mapping of {', '.join(hints)}")
    for key, value in given.items():
        if key not in hints:
            raise BadStages(f"{where}.{key}: unknown field; {nearest(str(key), hints)}")
        _check_keys(hints[key], value, f"{where}.{key}")
    for entry in fields(schema):
        if (
            entry.name not in given
            and entry.default is MISSING
            and entry.default_factory is MISSING
        ):
            raise BadStages(
                f"{where}.{entry.name}: is missing; its meaning is in {Path(__file__).name}"
            )


def _check_positive(record: Any, names: Iterable[str], where: str) -> None:
    for name in names:
        value = getattr(record, name)
        if value is not None and value < 1:
            raise BadStages(f"{where}: {name}={value}: must be at least 1")


def _check_run(run: Run, where: str) -> None:
    if not run.stages:
        raise BadStages(f"{where}: stages: name at least one")
    _check_positive(run, ("prompt_length", "save_every"), where)
    before = 0
    for name, stage in run.stages.items():
        here = f"{where}.stages.{name}"
        if not name or "/" in name or name.startswith("."):
            raise BadStages(f"{here}: the name of a stage is that of its folder")
        _check_positive(
            stage,
            ("last_step", "response_length", "batch", "mini_batch", "samples", "tokens_per_device"),
            here,
        )
        for pool in ("train", "rollout"):
            _check_positive(
                getattr(stage.pools, pool), ("nodes", "devices"), f"{here}.pools.{pool}"
            )
        if stage.last_step <= before:
            raise BadStages(
                f"{here}: last_step={stage.last_step}: must exceed {before}, where the stage before"
                " ends"
            )
        before = stage.last_step
        _check_until(stage.until, here)


def _check_until(until: Until, where: str) -> None:
    share = until.truncated_share
    if share is not None:
        _check_positive(share, ("window",), f"{where}.until.truncated_share")
        if (share.above is None) == (share.below is None):
            raise BadStages(f"{where}.until.truncated_share: give one of above and below")
    if until.plateau is not None:
        _check_positive(until.plateau, ("window",), f"{where}.until.plateau")
