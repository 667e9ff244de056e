"""Settings of a run, its stages and the hardware: every field with its meaning.

:mod:`verl_pipeline.recipes.deepcoder.stages.stage_loader` reads them from ``stages.yaml`` and
``hardware/<name>.yaml``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

# Metrics by name, by global step.
MetricsByStep = Mapping[int, Mapping[str, float]]
# Metrics of all trajectories of a step, before any filter.
TRUNCATED_SHARE_METRIC = "filters/before/truncated_share"
REWARD_METRIC = "filters/before/reward_mean"
# As `model` of a run: the model of verl_pipeline.quickstart.
QUICKSTART_MODEL = "quickstart"


@dataclass
class TruncatedShareRule:
    """Ends a stage by the share of responses that the length limit cut off, before any filter.

    Attributes:
        above, below: the stage ends if the mean over the window is above or below this value; give
            one of the two.
        window: number of steps.
    """

    above: float | None = None
    below: float | None = None
    window: int = 10


@dataclass
class PlateauRule:
    """Ends a stage when a metric stops rising.

    The stage ends if the mean over a window exceeds the mean over the window before it by less than
    ``gain``.

    Attributes:
        gain: in the unit of the metric.
        metric: a name in ``metrics.jsonl``.
        window: number of steps.
    """

    gain: float
    metric: str = REWARD_METRIC
    window: int = 10


@dataclass
class EndRules:
    """Rules that end a stage before its last step; the first rule that applies wins.

    They are evaluated whenever a checkpoint is complete.
    """

    truncated_share: TruncatedShareRule | None = None
    plateau: PlateauRule | None = None


@dataclass
class DevicePool:
    """A number of nodes, and the number of devices on each node."""

    nodes: int
    devices: int


@dataclass
class DevicePools:
    """The devices that train, and the devices that sample."""

    train: DevicePool
    rollout: DevicePool


@dataclass
class StageConfig:
    """One stage.

    Attributes:
        last_step: verl's global step at which the stage ends; steps are counted over all stages.
        response_length: maximum length of a response in tokens.
        batch: prompts per step.
        mini_batch: prompts per update.
        samples: responses per prompt.
        tokens_per_device: maximum length of a micro-batch in tokens per device. With sequence
            parallelism a sequence may be as many times longer. None: micro-batches have a fixed
            number of rows.
        pools: how the devices are split.
        temperature: sampling temperature; None: the one of GRPO+.
        until: rules that end the stage earlier.
        overrides: further settings of verl for this stage. The optimizer's must be the same in all
            stages, because a checkpoint restores them.
    """

    last_step: int
    response_length: int
    batch: int
    mini_batch: int
    samples: int
    pools: DevicePools
    tokens_per_device: int | None = None
    temperature: float | None = None
    until: EndRules = field(default_factory=EndRules)
    overrides: list[str] = field(default_factory=list)


@dataclass
class RunConfig:
    """A run: its stages, and what they have in common.

    Attributes:
        model: folder or hub name of the initial model; ``quickstart``: SmolLM2-135M-Instruct.
        data: folder of ``train.parquet`` and ``heldout.parquet``, unless ``--data`` is given.
        prompt_length: maximum length of a prompt in tokens; longer prompts are left out.
        stages: the stages by name, in order.
        answer_prefix: text with which the model's chat template begins an answer, see
            :mod:`verl_pipeline.rewards.code`.
        seed: seed of the order of the prompts.
        learning_rate: constant learning rate.
        save_every: steps between checkpoints.
        validate_every: steps between validations; -1: never.
        overrides: further settings of verl for all stages.
    """

    model: str
    data: str
    prompt_length: int
    stages: dict[str, StageConfig]
    answer_prefix: str = ""
    seed: int = 1
    learning_rate: float = 1e-6
    save_every: int = 10
    validate_every: int = 10
    overrides: list[str] = field(default_factory=list)


@dataclass
class HardwareConfig:
    """A machine or cluster.

    Attributes:
        run: name of the run in the stages file, unless ``--run`` is given.
        device: ``cuda`` or ``cpu``.
        nodes: number of nodes.
        devices: devices per node; on CPUs, slots for one process each.
        tensor_parallel: devices per rollout replica.
        sequence_parallel: devices that share a sequence in training (Ulysses).
        overrides: further settings of verl.
    """

    run: str
    device: str
    nodes: int
    devices: int
    tensor_parallel: int = 1
    sequence_parallel: int = 1
    overrides: list[str] = field(default_factory=list)
