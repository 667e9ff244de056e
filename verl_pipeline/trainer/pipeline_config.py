"""Our settings: ``trainer.v1.one_off_pipeline`` and ``trainer.v1.sync_filtered``.

Invariants:
* Every field is documented here and in ``verl_pipeline/config/one_off_pipeline.yaml``; a test
  compares the two.
* An unknown key, a wrong type or a value out of range is refused before anything is loaded; the
  error names field, value and fix.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl_pipeline.curriculum.settings import CurriculumSettings, find_wrong_curriculum
from verl_pipeline.errors import SettingsError
from verl_pipeline.filters import Filter, load_filters
from verl_pipeline.trainer.dial_settings import (
    AUTO,
    KV_CHOICES,
    AutoStalenessSettings,
    find_staleness,
    find_wrong_dial,
    make_dial,
)
from verl_pipeline.trainer.replica_settings import find_wrong_replicas
from verl_pipeline.trainer.schedule import DRAINED, Dial
from verl_pipeline.trainer.unknown_keys import find_unknown_keys

TRAINER_MODE = "one_off_pipeline"
FILTERED_SYNC_MODE = "sync_filtered"
PIPELINE_KEY = f"trainer.v1.{TRAINER_MODE}"
FILTERED_SYNC = f"trainer.v1.{FILTERED_SYNC_MODE}"
ROLLOUT = "actor_rollout_ref.rollout"


class ConfigError(SettingsError):
    """Settings of verl or of ours that cannot work."""


@dataclass(frozen=True)
class DerivedSetting:
    """One setting that was derived."""

    field: str
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"{self.field}={self.value}  ({self.reason})"


@dataclass
class Deadlines:
    """Longest waits, in seconds; each ends in an error that names who was awaited.

    ``batch_s``, ``trajectory_s`` and ``reward_s`` measure work, not queues: they start anew when
    something ends that the awaited may be queued behind (:mod:`verl_pipeline.trainer.stall`).
    """

    # Slots of Ray that others hold, and each process or placement group that Ray has not started.
    cluster_s: float = 600.0
    # The rollout servers, from the moment the trainer's own engines are ready.
    start_s: float = 3600.0
    # The trainer's wait for a batch while nothing of the pool ends: no turn, reward or trajectory.
    batch_s: float = 7200.0
    # One step of a trajectory: a turn from the moment its rollout server last finished one, or what
    # lies between two turns (tools). A slower trajectory counts as infrastructure.
    trajectory_s: float = 3600.0
    # One call of a synchronous reward function; any other reward from the moment the reward workers
    # last finished one. A slower one counts as infrastructure.
    reward_s: float = 300.0
    # One weight sync, from the first call to the last replica's answer.
    weight_sync_s: float = 600.0
    # One answer of TransferQueue's controller, which knows what is sampled.
    queue_s: float = 300.0
    # Pause between two health checks of each rollout server while a batch or a weight sync is
    # awaited.
    health_check_every_s: float = 5.0
    # A rollout server's answer to a health check.
    health_check_s: float = 20.0
    # Silence of a rollout server whose process lives, over three health checks or more.
    silent_server_s: float = 60.0
    # Past the barrier, silence of a vLLM engine that runs requests: not a token of any of them.
    token_s: float = 600.0
    # Past the barrier, time over which the speeds of the replicas are compared.
    slow_s: float = 300.0


@dataclass
class WeightCheck:
    """Whether the rollout replicas hold the weights that are trained; a difference ends the run."""

    # Weight syncs, from the start or the resume of a run, after which what each replica holds is
    # compared with what the trainer sent, tensor by tensor; 0: none.
    fingerprint_syncs: int = 3
    # Versions from one such comparison to the next, after those; 0: none.
    fingerprint_every: int = 20
    # Steps from one comparison of the trainer's and every replica's log-probs to the next, after
    # the first three steps; 0: none at all.
    log_prob_every: int = 10
    # Largest mean difference of these log-probs; null: 0.05 with rollout.dtype=float32, 0.2 with
    # half precision, 0.5 with quantised weights, and less if the run's first ones are small.
    max_log_prob_gap: float | None = None


@dataclass
class Telemetry:
    """What a run, in any trainer mode, records of itself below ``trainer.default_local_dir``."""

    # Times of pools, replicas and trajectories, to be read by `verl-pipeline report`.
    enabled: bool = True
    # Trajectories of each step whose prompt and response are kept as text; 0: none.
    texts_per_step: int = 16


@dataclass
class OneOffPipelineConfig:
    """``trainer.v1.one_off_pipeline``."""

    # When a rollout replica takes new weights: "drained" (when the whole pool runs nothing),
    # "rolling" (when it runs nothing itself) or "in_flight" (at once, its requests frozen).
    weight_sync_mode: str = DRAINED
    # Updates between the oldest weights a batch is sampled with and the weights it updates: 0 or 1
    # (one-off pipelining) with "drained", 1 to 8 with the others, or "auto", which chooses from
    # what the steps take.
    staleness: int | str = 1
    # What "auto" keeps to.
    auto_staleness: AutoStalenessSettings = field(default_factory=AutoStalenessSettings)
    # What "in_flight" does with the KV cache of running requests: "keep" it as the older weights
    # made it, or "recompute" it with the new ones.
    kv: str = "keep"
    # Trajectories that a replica has open at a time, past the barrier; null: rollout.max_num_seqs.
    slots: int | None = None
    # Whether each request has a seed of its own, so that a run that is repeated or resumed samples
    # the same tokens; vLLM only.
    seeded_sampling: bool = False
    # Whether a validation is sampled while the trainer goes on with the next steps, rather than
    # before them. Its metrics are then logged with the step in which it ends. The one before the
    # training and the one after the last step are always waited for.
    val_beside_training: bool = False
    # Whether a checkpoint waits with "drained" until the pool has drained: a resumed run then goes
    # on from the same state, bit by bit. Otherwise it samples again what was not complete, as past
    # the barrier.
    drain_at_checkpoint: bool = True
    # Past the barrier, the fewest rollout replicas that the run goes on with when others die, hang
    # or fail in a load.
    min_replicas: int = 1
    # Past the barrier, the most replicas that the run takes when nodes join Ray's cluster; null: as
    # many as it starts with, so that a node's replacement is used.
    max_replicas: int | None = None
    # Past the barrier, how many times slower than the median of the others, at the same load, a
    # vLLM replica may be; a slower one is taken out and started again, once. null: any.
    slow_factor: float | None = None
    # Off-policy correction: "auto" (token-level importance weights from staleness 1 on, none at 0)
    # or "as_configured" (algorithm.rollout_correction).
    correction: str = "auto"
    # Effective sample size of a batch's importance weights before truncation, as a share of its
    # tokens, below which the run warns, and "auto" takes a smaller staleness; 0: never. For weights
    # whose logarithm is normal, 0.9 is a KL divergence of 0.05 nats a token.
    min_effective_share: float = 0.9
    # Filters between reward and advantage, in this order: names of registered filters or class
    # paths, or mappings of name and settings, as in {name: overlong, mode: drop}.
    filters: list[Any] = field(default_factory=lambda: ["infrastructure"])
    # Which prompts each batch has.
    curriculum: CurriculumSettings = field(default_factory=CurriculumSettings)
    # Share of a batch's trajectories that may be lost to infrastructure (failed generation, reward
    # or grader) before the run stops with the first traceback.
    max_infrastructure_share: float = 0.25
    # How often in a row a run that dies is started again without a newer checkpoint; 0: never.
    restarts: int = 0
    # Checks that the weights reach the rollout replicas.
    weight_check: WeightCheck = field(default_factory=WeightCheck)
    # Longest waits.
    deadlines: Deadlines = field(default_factory=Deadlines)
    # What the run records of itself.
    telemetry: Telemetry = field(default_factory=Telemetry)

    @property
    def dial(self) -> Dial:
        """What the schedule needs to know; with ``staleness=auto``, what it begins with."""
        return make_dial(self.weight_sync_mode, self.staleness, self.auto_staleness)

    @property
    def is_auto(self) -> bool:
        """Whether the trainer chooses the staleness."""
        return self.staleness == AUTO

    @property
    def most_staleness(self) -> int:
        """The largest that the run may have."""
        return find_staleness(self.weight_sync_mode, self.staleness, self.auto_staleness)[1]


def load_pipeline_config(config: DictConfig) -> OneOffPipelineConfig:
    """Read ``trainer.v1.one_off_pipeline`` from verl's configuration; absent keys take their
    defaults.

    Raises:
        ConfigError: unknown keys, a wrong type or values out of range; one line each.
    """
    section = OmegaConf.select(config, PIPELINE_KEY) or OmegaConf.create({})
    if not OmegaConf.is_dict(section):
        raise ConfigError(f"{PIPELINE_KEY}={section}: must be a mapping")
    _refuse(find_unknown_keys(section, OneOffPipelineConfig, PIPELINE_KEY))
    try:
        plain = OmegaConf.create(OmegaConf.to_container(section, resolve=True))
        merged = OmegaConf.merge(OmegaConf.structured(OneOffPipelineConfig), plain)
        loaded: OneOffPipelineConfig = OmegaConf.to_object(merged)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"{PIPELINE_KEY}.{error.full_key}: {str(error).splitlines()[0]}"
        ) from error
    _refuse(_find_wrong_values(loaded))
    return loaded


def load_sync_filters(config: DictConfig) -> list[Filter]:
    """The filters of ``trainer.v1.sync_filtered``, its only key.

    Raises:
        ConfigError: another key, or a filter that cannot be made.
    """
    section = OmegaConf.select(config, FILTERED_SYNC) or OmegaConf.create({})
    for key in section:
        if key != "filters":
            raise ConfigError(f"{FILTERED_SYNC}.{key}: unknown key; known keys: filters")
    return make_filters(section.get("filters", ["infrastructure"]), f"{FILTERED_SYNC}.filters")


def make_filters(entries: Any, name: str) -> list[Filter]:
    """Filters of the list ``entries`` of the field ``name``.

    Raises:
        ConfigError: no list, or one of them cannot be made.
    """
    plain = (
        OmegaConf.to_container(entries, resolve=True) if OmegaConf.is_config(entries) else entries
    )
    if not isinstance(plain, list):
        raise ConfigError(
            f"{name}={plain}: must be a list, as in [infrastructure,{{name: overlong, mode: drop}}]"
        )
    try:
        return load_filters(plain)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error


def _refuse(faults: Iterable[str]) -> None:
    if lines := list(faults):
        raise ConfigError(*lines)


def _find_wrong_values(loaded: OneOffPipelineConfig) -> Iterator[str]:
    yield from find_wrong_dial(
        loaded.weight_sync_mode, loaded.staleness, loaded.auto_staleness, PIPELINE_KEY
    )
    if loaded.kv not in KV_CHOICES:
        yield f"{PIPELINE_KEY}.kv={loaded.kv}: must be {' or '.join(KV_CHOICES)}"
    if loaded.slots is not None and loaded.slots < 1:
        yield (
            f"{PIPELINE_KEY}.slots={loaded.slots}: must be 1 or more, or null for "
            f"{ROLLOUT}.max_num_seqs"
        )
    yield from find_wrong_replicas(
        loaded.min_replicas, loaded.max_replicas, loaded.slow_factor, PIPELINE_KEY
    )
    if loaded.correction not in ("auto", "as_configured"):
        yield f"{PIPELINE_KEY}.correction={loaded.correction}: must be auto or as_configured"
    for name in ("max_infrastructure_share", "min_effective_share"):
        if not 0.0 <= getattr(loaded, name) <= 1.0:
            yield f"{PIPELINE_KEY}.{name}={getattr(loaded, name)}: must lie between 0 and 1"
    yield from find_wrong_curriculum(loaded.curriculum, f"{PIPELINE_KEY}.curriculum")
    if loaded.restarts < 0:
        yield f"{PIPELINE_KEY}.restarts={loaded.restarts}: must be 0 (never) or more"
    check = loaded.weight_check
    for name in ("fingerprint_syncs", "fingerprint_every", "log_prob_every"):
        if getattr(check, name) < 0:
            yield (
                f"{PIPELINE_KEY}.weight_check.{name}={getattr(check, name)}: must be 0 (none) or "
                "more"
            )
    if check.max_log_prob_gap is not None and not check.max_log_prob_gap > 0:
        yield (
            f"{PIPELINE_KEY}.weight_check.max_log_prob_gap={check.max_log_prob_gap}: must be "
            "positive, or null for the limit of rollout.dtype"
        )
    if loaded.telemetry.texts_per_step < 0:
        yield (
            f"{PIPELINE_KEY}.telemetry.texts_per_step={loaded.telemetry.texts_per_step}: must be 0 "
            "(none) or more"
        )
    for entry in fields(Deadlines):
        value = getattr(loaded.deadlines, entry.name)
        if not value > 0:
            yield f"{PIPELINE_KEY}.deadlines.{entry.name}={value}: must be positive seconds"
