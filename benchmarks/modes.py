"""The trainer modes that :mod:`benchmarks.pipeline` compares, as overrides of one common
configuration.

Invariant: all modes compute the same: one update a batch from the rollout's own log-probs (bypass
mode, as DeepCoder; it is what ``one_step_off_policy`` ships), no reference model, the same
precision and micro-batches. What differs is who waits for whom.
"""

from dataclasses import dataclass
from pathlib import Path

from benchmarks import fixed_length
from benchmarks.workload import PROMPT_LENGTH, Workload
from verl_pipeline.testing.runs import OURS, STOCK

ROLLOUT = "actor_rollout_ref.rollout"
ACTOR = "actor_rollout_ref.actor"
_SEPARATE = (
    f"{ROLLOUT}.checkpoint_engine.backend=gloo",
    f"{ROLLOUT}.checkpoint_engine.custom_backend_module=verl_pipeline.weight_sync.gloo_broadcast",
    f"+{ROLLOUT}.checkpoint_engine.engine_kwargs.gloo.rollout_dtype=float32",
)


@dataclass(frozen=True)
class Mode:
    """One way to train.

    Attributes:
        name: in tables and results.
        module: what ``python -m`` runs.
        overrides: beside the common ones.
        pools: 2 for separate pools of one core each, 1 for one pool of both cores.
        poll_s: pause between two looks of verl's replay buffer, in seconds; None where it is not
            used.
        ahead: batches that are sampled ahead of the one that is trained: step k runs beside the
            sampling of k + ahead.
        labels_ahead: how much higher the version is that the mode calls its weights than the
            updates they have seen.
    """

    name: str
    module: str
    overrides: tuple[str, ...]
    pools: int
    poll_s: float | None
    ahead: int
    labels_ahead: int = 0


def _ours(staleness: int) -> Mode:
    overrides = (f"trainer.v1.one_off_pipeline.staleness={staleness}", f"{ROLLOUT}.nnodes=1")
    correction = "trainer.v1.one_off_pipeline.correction=as_configured"
    return Mode(
        f"ours, staleness {staleness}", OURS, (*overrides, correction), 2, None, ahead=staleness
    )


def _sync(poll_s: float, name: str) -> Mode:
    return Mode(f"verl sync{name}", STOCK, ("trainer.v1.trainer_mode=sync",), 1, poll_s, ahead=0)


def _separate_async(poll_s: float, name: str) -> Mode:
    overrides = (
        *_SEPARATE,
        "trainer.v1.trainer_mode=separate_async",
        "trainer.v1.separate_async.parameter_sync_step=1",
        "trainer.v1.separate_async.num_warmup_batches=1",
        "actor_rollout_ref.hybrid_engine=False",
        f"{ROLLOUT}.nnodes=1",
    )
    return Mode(f"verl separate_async{name}", STOCK, overrides, 2, poll_s, ahead=1)


_ONE_STEP_OFF = Mode(
    "verl one_step_off_policy",
    "verl.experimental.one_step_off_policy.main_ppo",
    (
        *_SEPARATE,
        # As shipped, the path only exists in verl's own source folder.
        "hydra.searchpath=[pkg://verl.trainer.config]",
        "rollout.n_gpus_per_node=1",
        "actor_rollout_ref.hybrid_engine=False",
    ),
    2,
    None,
    ahead=1,
    # It sends v_{k-1} in step k, as version k.
    labels_ahead=1,
)
MODES = (
    _sync(0.05, ", 50 ms poll"),
    _ours(1),
    _ONE_STEP_OFF,
    _separate_async(0.05, ", 50 ms poll"),
    _ours(0),
    _sync(2.0, " as shipped"),
    _separate_async(2.0, " as shipped"),
)


def common(model: Path, data: Path, workloads: tuple[Workload, ...], steps: int) -> list[str]:
    """What all modes are given."""
    batch = len(workloads[0].lengths)
    longest = max(workload.longest for workload in workloads)
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
        # A micro-batch is padded to its longest sequence: one by one, no mode computes padding.
        f"{ACTOR}.ppo_micro_batch_size_per_gpu=1",
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=1",
        f"{ROLLOUT}.n={len(workloads[0].lengths[0])}",
        f"{ROLLOUT}.max_num_seqs=32",
        f"{ROLLOUT}.max_model_len={PROMPT_LENGTH + longest}",
        f"{ROLLOUT}.calculate_log_probs=True",
        "algorithm.adv_estimator=grpo",
        "algorithm.rollout_correction.bypass_mode=True",
        *fixed_length.overrides(data.parent),
        f"trainer.total_training_steps={steps}",
        "trainer.total_epochs=1",
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
        "trainer.resume_mode=disable",
    ]
