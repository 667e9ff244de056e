"""Filters in real runs: in our trainer, in verl's sync by configuration alone, and in the thin
trainer for the rest.
"""

import math

import pytest

from tests.helpers.patience import scale_deadline
from tests.helpers.training_run import check_clean, tail
from verl_pipeline.testing import runs, tiny_run

pytestmark = pytest.mark.timeout(600)
EMPTYING = "tests.helpers.filtered_run.SecondBatchGone"
STEPS = 4


def run(directory, *overrides, module=runs.OURS):
    # A policy that stays nearly uniform over 45 tokens: of eight answers of up to 40, about half
    # end by themselves.
    settings = [
        *tiny_run.make_overrides(directory, n=8),
        "data.max_response_length=40",
        "actor_rollout_ref.actor.optim.lr=1e-7",
        f"trainer.total_training_steps={STEPS}",
        *overrides,
    ]
    finished = runs.run_training(directory, settings, module=module, timeout_s=scale_deadline(550))
    assert finished.returncode == 0, tail(finished)
    if module == runs.OURS:  # verl's own entry leaves shared memory of its engines behind
        check_clean(finished)
    assert sorted(finished.metrics) == list(range(1, STEPS + 1))
    assert not [
        name
        for step in finished.metrics.values()
        for name, value in step.items()
        if math.isnan(value)
    ]
    return finished.metrics


def check_overlong(metrics, step):
    """What was cut off is seen, and is not trained on."""
    found = metrics[step]
    assert 0 < found["filters/before/truncated_share"] <= 1
    assert found["filters/overlong/dropped"] > 0 and found["filters/after/truncated_share"] == 0
    assert (
        found["filters/after/response_length_mean"] < found["filters/before/response_length_mean"]
    )


def check_tokens(found):
    """verl's rates: of the tokens that train, without padding, and for each token generated."""
    lengths = found["prompt_length/mean"] + found["response_length/mean"]
    trained = found["filters/after/trajectories"] * lengths
    assert found["perf/total_num_tokens"] == pytest.approx(trained)
    devices = trained / found["timing_s/step"] / found["perf/throughput"]
    assert devices == pytest.approx(round(devices)) and round(devices) in (1, 2)
    if "timing_s/gen" in found:
        side = "filters/before"
        sampled = found[f"{side}/trajectories"] * found[f"{side}/response_length_mean"]
        wanted = 1000 * found["timing_s/gen"] / sampled
        assert found["timing_per_token_ms/gen"] == pytest.approx(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("staleness", [1, 0])
def test_ours_skips_an_update_of_which_nothing_is_left(tmp_path, staleness):
    filters = f"[infrastructure,{{name: overlong, mode: drop}},{EMPTYING}]"
    metrics = run(
        tmp_path,
        "actor_rollout_ref.rollout.nnodes=1",
        f"trainer.v1.one_off_pipeline.staleness={staleness}",
        f"trainer.v1.one_off_pipeline.filters={filters}",
    )
    assert [metrics[step]["filters/skipped_update"] for step in metrics] == [0, 1, 0, 0]
    assert [step for step in metrics if "actor/grad_norm" in metrics[step]] == [1, 3, 4]
    assert metrics[2]["filters/after/trajectories"] == 0 and metrics[2]["timing_s/step"] > 0
    for step in (1, 3, 4):
        check_overlong(metrics, step)
        check_tokens(metrics[step])
    # Also if nothing is trained.
    assert all(("timing_s/gen" in metrics[step]) == (staleness == 0) for step in metrics)


@pytest.mark.slow
@pytest.mark.parametrize("module", [runs.STOCK, runs.OURS])
def test_verls_sync_drops_by_configuration_alone(tmp_path, module):
    filters = f"[{{name: overlong, mode: drop}},{EMPTYING}]"
    metrics = run(
        tmp_path,
        "trainer.v1.trainer_mode=sync",
        "+sync_filters=overlong",
        f"trainer.v1.sampler.sampler_kwargs.filters={filters}",
        module=module,
    )
    assert [metrics[step]["filters/replaced_batches"] for step in metrics] == [0, 1, 0, 0]
    for step in metrics:
        check_overlong(metrics, step)


@pytest.mark.slow
def test_the_thin_trainer_zeroes_advantages(tmp_path):
    filters = f"[{{name: overlong, mode: deepcoder}},{EMPTYING}]"
    metrics = run(
        tmp_path,
        "trainer.v1.trainer_mode=sync_filtered",
        f"+trainer.v1.sync_filtered.filters={filters}",
        "reward.custom_reward_function.path=pkg://tests.helpers.filtered_run",
    )
    assert [metrics[step]["filters/skipped_update"] for step in metrics] == [0, 1, 0, 0]
    for step in (1, 3, 4):
        assert (
            metrics[step]["filters/overlong/zero_advantage"] > 0
            and metrics[step]["filters/overlong/dropped"] == 0
        )
        assert (
            metrics[step]["filters/after/trajectories"]
            < metrics[step]["filters/before/trajectories"]
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode",
    [
        ["trainer.v1.trainer_mode=sync", "+sync_filters=overlong"],
        ["trainer.v1.trainer_mode=sync_filtered"],
    ],
    ids=["sync", "sync_filtered"],
)
def test_what_is_no_reward_costs_its_own_trajectory_in_sync_too(tmp_path, mode):
    metrics = run(
        tmp_path,
        *mode,
        "reward.custom_reward_function.path=pkg://tests.helpers.failing_run",
        "reward.custom_reward_function.name=compute_odd_score",
        "actor_rollout_ref.rollout.val_kwargs.n=8",
        "actor_rollout_ref.rollout.val_kwargs.do_sample=True",
        "actor_rollout_ref.rollout.val_kwargs.temperature=1.0",
        f"trainer.test_freq={STEPS}",
    )
    for step in metrics.values():
        assert 0 < step["filters/no_reward/dropped"] < 32
        assert step["actor/grad_norm"] > 0
    assert [name for name in metrics[STEPS] if name.startswith("val-core/tiny/")]
