"""One whole run: PPO with critic and reference model, two pools, validation, checkpoints, clean
end.
"""

import contextlib

import psutil
import pyarrow.compute as pc
import pytest

from tests.helpers.training_run import check_clean, tail
from verl_pipeline.telemetry.run_folder import load_run
from verl_pipeline.testing import runs, tiny_run

pytestmark = pytest.mark.timeout(1200)

WORKERS = ("VLLM::EngineCore", "VLLM::Worker", "ray::WorkerDict", "ray::vLLMHttpServer")


def list_starters(processes):
    """By title of a worker among these processes, the program that has started it."""
    starters = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            title = " ".join(process.cmdline())
            if title.startswith(WORKERS):
                starters[title.split(".")[0].strip()] = " ".join(process.parent().cmdline())
    return starters


def test_ppo_with_critic_and_reference_model(tmp_path):
    settings = tiny_run.make_overrides(tmp_path)
    starters = {}
    run = runs.run_training(
        tmp_path / "run",
        [
            *settings,
            "actor_rollout_ref.rollout.nnodes=1",
            "algorithm.adv_estimator=gae",
            "actor_rollout_ref.actor.use_kl_loss=True",
            "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=8",
            f"critic.model.path={tmp_path / 'model'}",
            "critic.ppo_mini_batch_size=4",
            "critic.ppo_micro_batch_size_per_gpu=8",
            "critic.optim.lr=1e-3",
            "trainer.total_training_steps=4",
            "trainer.val_before_train=True",
            "trainer.test_freq=2",
            "trainer.save_freq=2",
            f"trainer.default_local_dir={tmp_path / 'checkpoints'}",
        ],
        watch=lambda processes: starters.update(list_starters(processes)),
    )
    assert run.returncode == 0, tail(run)
    for step in (1, 2, 3, 4):
        metrics = run.metrics[step]
        assert metrics["actor/grad_norm"] > 0
        assert "critic/vf_loss" in metrics and "actor/kl_loss" in metrics
        assert metrics.get("pipeline/weight_sync/aborted_requests", 0) == 0
    assert any(name.startswith("val-core/") for name in run.metrics[2])
    assert (tmp_path / "checkpoints" / "global_step_4" / "critic").is_dir()
    assert (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").read_text() == "4"
    spans = load_run(tmp_path / "checkpoints").spans
    names = spans.filter(pc.field("lane") == "critic rank 0")["name"].to_pylist()
    assert names.count("values") == names.count("update_critic") == len(names) / 2 == 4
    check_clean(run)
    # Else each worker imports for itself: a start takes 70 s instead of 20. The end of a run and
    # the benchmarks know the engines by their titles.
    assert sorted(starters) == sorted(WORKERS)
    assert all("fork_server" in starter for starter in starters.values()), starters
