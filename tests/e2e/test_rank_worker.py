"""What two trainer ranks compute for the driver, against verl's sync trainer with its own worker.

The rest of the end-to-end tests have one rank and no reference model.
"""

import pytest

from verl_pipeline.testing import equivalence, runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SETTINGS = [
    "trainer.n_gpus_per_node=2",
    "trainer.total_epochs=1",
    "actor_rollout_ref.actor.use_kl_loss=True",
    "actor_rollout_ref.actor.kl_loss_coef=0.1",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=8",
    "algorithm.rollout_correction.rollout_is=token",
    "algorithm.rollout_correction.rollout_is_batch_normalize=True",
    "algorithm.rollout_correction.rollout_rs=token_k1",
    "algorithm.rollout_correction.rollout_rs_threshold=0.9_1.1",
]
OF_LOG_PROBS = ("actor/", "critic/", "rollout_corr/", "training/rollout_")
MEASURED = ("actor/perf/",)


def find_tolerance(name):
    """A spread is the root of a difference of float32 sums near 1, whose last bit is 6e-8."""
    return 5e-4 if name.endswith("_std") else 1e-5


def test_two_ranks_with_a_reference_model_train_and_log_what_verls_do(tmp_path):
    logged = {}
    for mode in ("sync", "one_off_pipeline"):
        overrides = [*equivalence.make_overrides(tmp_path, mode), *SETTINGS]
        if mode != "sync":
            overrides.append("+trainer.v1.one_off_pipeline.correction=as_configured")
        finished = runs.run_training(tmp_path / mode, overrides, module=runs.STOCK)
        assert finished.returncode == 0, finished.output[-4000:]
        logged[mode] = finished.metrics
    sync, ours = logged["sync"], logged["one_off_pipeline"]
    assert sync.keys() == ours.keys() and len(sync) == equivalence.ROWS // equivalence.BATCH
    for step, expected in sync.items():
        names = {name for name in expected if name.startswith(OF_LOG_PROBS)}
        names = {name for name in names if not name.startswith(MEASURED)}
        assert {"actor/kl_loss", "rollout_corr/rollout_is_batch_norm_factor"} <= names
        differing = [
            f"{name} of step {step}: {expected[name]} in sync, {ours[step].get(name)} in ours"
            for name in sorted(names)
            if ours[step].get(name)
            != pytest.approx(expected[name], rel=1e-4, abs=find_tolerance(name))
        ]
        assert differing == []
