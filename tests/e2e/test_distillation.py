"""On-policy distillation in real runs: verl's teacher pool beside our rollout pool, on CPUs."""

import math

import pytest

from tests.helpers.patience import scale_deadline
from tests.helpers.silent_teacher import FAILING_EVERY, write_teacher
from tests.helpers.training_run import check_clean, tail
from verl_pipeline.testing import runs, tiny_run

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
TEACHER = "distillation.teacher_models.teacher_model"
LOSS = "distillation.distillation_loss"
STEPS = 3


@pytest.mark.parametrize(("staleness", "task_reward"), [(1, False), (0, True)])
def test_a_run_learns_from_its_teacher_and_masks_what_the_teacher_did_not_say(
    tmp_path, staleness, task_reward
):
    teacher = write_teacher(tmp_path / "teacher")
    settings = [
        *tiny_run.make_overrides(tmp_path),
        "actor_rollout_ref.rollout.nnodes=1",
        "+actor_rollout_ref.rollout.agent.agent_loop_manager_class="
        "tests.helpers.silent_teacher.SilentTeacherManager",
        f"trainer.v1.one_off_pipeline.staleness={staleness}",
        "trainer.v1.one_off_pipeline.correction=as_configured",
        "algorithm.rollout_correction.bypass_mode=True",
        "distillation.enabled=True",
        "distillation.nnodes=1",
        "distillation.n_gpus_per_node=1",
        f"{LOSS}.loss_mode=k1",
        f"{LOSS}.use_policy_gradient=True",
        f"{LOSS}.use_task_rewards={task_reward}",
        f"{TEACHER}.model_path={teacher}",
        f"{TEACHER}.inference.tensor_model_parallel_size=1",
        f"{TEACHER}.inference.max_model_len=128",
        f"{TEACHER}.inference.max_num_seqs=64",
        f"{TEACHER}.inference.free_cache_engine=False",
        f"+{TEACHER}.inference.enable_sleep_mode=False",
        f"trainer.total_training_steps={STEPS}",
    ]
    finished = runs.run_training(tmp_path, settings, timeout_s=scale_deadline(550))
    assert finished.returncode == 0, tail(finished)
    check_clean(finished)
    assert sorted(finished.metrics) == list(range(1, STEPS + 1))
    for step in finished.metrics.values():
        assert step["filters/no_reward/dropped"] == 16 // FAILING_EVERY
        assert step["filters/after/trajectories"] == 15
        # A missing log-prob that was taken for a number would be none here, or a loss of 0.
        assert math.isfinite(step["actor/grad_norm"]) and step["actor/grad_norm"] > 0
        assert 0 < step["actor/distillation/abs_loss"] < 20
    assert "planted: the teacher's answer was lost" in finished.output
