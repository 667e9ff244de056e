"""The trainer modes of :mod:`benchmarks.pipeline`, as overrides of a common configuration.

Invariant: all modes do the same computation: one update per batch from the rollout's log-probs
(bypass mode, as in DeepCoder and as ``one_step_off_policy`` is shipped), no reference model, the
same precision and micro-batches. They differ only in which pool waits for which.

Our entry runs verl's trainers too, and records them as it records ours; verl's
``one_step_off_policy`` has an entry and a trainer of its own, which nothing records.
"""

from dataclasses import dataclass
from pathlib import Path

from benchmarks import fixed_length
from benchmarks.verl_modes import (
    ONE_STEP_OFF,
    ONE_STEP_OFF_MODULE,
    SEPARATE_ASYNC,
    STEPS_ONLY,
)
from benchmarks.workload import PROMPT_LENGTH, Workload
from verl_pipeline.testing.runs import OURS
from verl_pipeline.trainer.schedule import DRAINED, IN_FLIGHT, ROLLING

ROLLOUT = "actor_rollout_ref.rollout"
ACTOR = "actor_rollout_ref.actor"


@dataclass(frozen=True)
class TrainerMode:
    """One way to train.

    Attributes:
        name: name in tables and results.
        module: module for ``python -m``.
        overrides: overrides in addition to the common ones.
        pools: 2: separate pools of one core each; 1: one pool of both cores.
        poll_s: poll interval of verl's replay buffer, in seconds; None if it is not used.
        batches_ahead: step k runs beside the sampling of batch k + ``batches_ahead``.
        version_offset: the mode's version numbers minus the number of updates of the weights.
        ranks: of the trainer; where all share both cores, also rollout replicas.
        is_recorded: whether its runs leave what ``verl-pipeline report`` reads.
        keeps_batches: whether step k trains the data loader's batch k. verl's separate_async trains
            the prompts that are complete first, so that its steps differ in their work.
    """

    name: str
    module: str
    overrides: tuple[str, ...]
    pools: int
    poll_s: float | None
    batches_ahead: int
    version_offset: int = 0
    is_recorded: bool = True
    ranks: int = 1
    keeps_batches: bool = True

    @property
    def threads(self) -> int:
        """Of a rank, and of an engine: all that two cores have for it."""
        return 2 // max(self.pools, self.ranks)


def _make_our_mode(
    staleness: int, kind: str = DRAINED, replicas: int = 1, is_recorded: bool = True
) -> TrainerMode:
    overrides = (
        f"trainer.v1.one_off_pipeline.weight_sync_mode={kind}",
        f"trainer.v1.one_off_pipeline.staleness={staleness}",
        "trainer.v1.one_off_pipeline.correction=as_configured",
        f"trainer.v1.one_off_pipeline.telemetry.enabled={is_recorded}",
        f"{ROLLOUT}.nnodes=1",
        f"{ROLLOUT}.n_gpus_per_node={replicas}",
    )
    name = "ours" if kind == DRAINED else f"ours, {kind.replace('_', ' ')}"
    return TrainerMode(
        f"{name}, staleness {staleness}"
        f"{'' if replicas == 1 else f', {replicas} replicas'}"
        f"{'' if is_recorded else ', without telemetry'}",
        OURS,
        overrides,
        pools=2,
        poll_s=None,
        batches_ahead=staleness,
        is_recorded=is_recorded,
    )


def _make_sync_mode(poll_s: float, suffix: str, ranks: int = 1) -> TrainerMode:
    return TrainerMode(
        f"verl sync{suffix}",
        OURS,
        ("trainer.v1.trainer_mode=sync", f"trainer.n_gpus_per_node={ranks}"),
        pools=1,
        poll_s=poll_s,
        batches_ahead=0,
        ranks=ranks,
    )


def _make_separate_async_mode(poll_s: float, suffix: str, replicas: int = 1) -> TrainerMode:
    return TrainerMode(
        f"verl separate_async{suffix}",
        OURS,
        (*SEPARATE_ASYNC, f"{ROLLOUT}.n_gpus_per_node={replicas}"),
        pools=2,
        poll_s=poll_s,
        batches_ahead=1,
        keeps_batches=False,
    )


_ONE_STEP_OFF = TrainerMode(
    "verl one_step_off_policy",
    ONE_STEP_OFF_MODULE,
    ONE_STEP_OFF,
    pools=2,
    poll_s=None,
    batches_ahead=1,
    # In step k it sends the weights after update k-1, as version k.
    version_offset=1,
    is_recorded=False,
)
MODES = (
    _make_sync_mode(0.05, ", 50 ms poll"),
    _make_our_mode(1),
    _ONE_STEP_OFF,
    _make_separate_async_mode(0.05, ", 50 ms poll"),
    _make_our_mode(0),
    _make_our_mode(1, is_recorded=False),
    _make_sync_mode(0.05, ", two ranks", ranks=2),
    _make_sync_mode(2.0, " as shipped"),
    _make_separate_async_mode(2.0, " as shipped"),
    # Replicas of a pool share its core.
    _make_our_mode(1, replicas=2),
    _make_separate_async_mode(0.05, ", 2 replicas", replicas=2),
    *(
        _make_our_mode(staleness, kind, replicas)
        for kind in (ROLLING, IN_FLIGHT)
        for staleness in (2, 4)
        for replicas in (1, 2)
    ),
)


def make_common_overrides(
    model: Path, data: Path, workloads: tuple[Workload, ...], steps: int
) -> list[str]:
    """Return the overrides that all modes share."""
    batch = len(workloads[0].lengths)
    longest = max(workload.max_length for workload in workloads)
    return [
        "+verl_pipeline=cpu",
        f"data.train_files={data}",
        f"data.val_files={data}",
        f"data.train_batch_size={batch}",
        f"data.max_prompt_length={PROMPT_LENGTH}",
        f"data.max_response_length={longest}",
        "data.dataloader_num_workers=0",
        "data.shuffle=False",
        f"actor_rollout_ref.model.path={model}",
        "actor_rollout_ref.model.enable_gradient_checkpointing=False",
        f"{ACTOR}.ppo_mini_batch_size={batch}",
        # A micro-batch is padded to its longest sequence; with one sequence there is no padding.
        f"{ACTOR}.ppo_micro_batch_size_per_gpu=1",
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=1",
        f"{ROLLOUT}.n={len(workloads[0].lengths[0])}",
        f"{ROLLOUT}.max_num_seqs=32",
        f"{ROLLOUT}.max_model_len={PROMPT_LENGTH + longest}",
        f"{ROLLOUT}.calculate_log_probs=True",
        "algorithm.adv_estimator=grpo",
        "algorithm.rollout_correction.bypass_mode=True",
        *fixed_length.make_overrides(data.parent),
        f"trainer.total_training_steps={steps}",
        *STEPS_ONLY,
    ]
