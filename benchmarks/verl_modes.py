"""verl's own trainer modes with two pools, as overrides for CPUs.

Invariant: what a benchmark compares itself with is set up in one place, for real engines and
emulated ones.
"""

from verl_pipeline.verl_adapter.settings.derived_settings import GLOO_MODULE

_ENGINE = "actor_rollout_ref.rollout.checkpoint_engine"
_TWO_POOLS = (
    "actor_rollout_ref.rollout.nnodes=1",
    "actor_rollout_ref.hybrid_engine=False",
    f"{_ENGINE}.backend=gloo",
    f"{_ENGINE}.custom_backend_module={GLOO_MODULE}",
    f"+{_ENGINE}.engine_kwargs.gloo.rollout_dtype=float32",
)
SEPARATE_ASYNC = (
    *_TWO_POOLS,
    "trainer.v1.trainer_mode=separate_async",
    "trainer.v1.separate_async.parameter_sync_step=1",
    "trainer.v1.separate_async.num_warmup_batches=1",
)


def make_separate_async(staleness: int) -> tuple[str, ...]:
    """`separate_async` so many batches ahead, which waits for prompts that are as old as that."""
    return (
        *SEPARATE_ASYNC[:-1],
        f"trainer.v1.separate_async.num_warmup_batches={staleness}",
        # Versions that a trajectory may span: that of its first token counts.
        f"trainer.v1.sampler.max_off_policy_threshold={staleness + 1}",
        "trainer.v1.sampler.max_off_policy_strategy=wait",
    )


ONE_STEP_OFF = (
    *_TWO_POOLS,
    # The shipped search path exists only in verl's source folder.
    "hydra.searchpath=[pkg://verl.trainer.config]",
    "rollout.n_gpus_per_node=1",
)
# An entry of its own, which nothing of ours records.
ONE_STEP_OFF_MODULE = "verl.experimental.one_step_off_policy.main_ppo"
# Steps and nothing else.
STEPS_ONLY = (
    "trainer.total_epochs=1",
    "trainer.val_before_train=False",
    "trainer.test_freq=-1",
    "trainer.save_freq=-1",
    "trainer.resume_mode=disable",
)
