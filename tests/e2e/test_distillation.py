"""Distillation in real runs on CPUs: verl's teacher pool beside our rollout pool, and the recipe's
SFT, killed and resumed.
"""

import json
import math
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers.patience import scale_deadline
from tests.helpers.silent_teacher import FAILING_EVERY, write_teacher
from tests.helpers.training_run import check_clean, tail
from verl_pipeline.quickstart.problems import load_problems, write_parquet
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


def test_the_recipe_distils_right_answers_and_goes_on_after_an_interrupt(tmp_path):
    """The teacher's answers come from a file: half of them right, one of them cut short."""
    student = tiny_run.write_model(tmp_path / "student")
    easy = [one for one in load_problems() if one.difficulty == "easy"]
    asked = [one for one in easy if one.split == "train"][:16]
    write_parquet(tmp_path / "data", [*asked, *[one for one in easy if one.split == "heldout"][:2]])
    answers = [
        {"id": problem.name, "response": f"```python\n{code}\n```"}
        for problem in asked
        for code in (problem.reference, "wrong")
    ]
    teacher = tmp_path / "answers.jsonl"
    teacher.write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    output = tmp_path / "out"
    command = [
        sys.executable,
        *("-m", "verl_pipeline.recipes.deepcoder.distill", "--method", "sft"),
        *("--data", str(tmp_path / "data"), "--output", str(output)),
        f"student={student}",
        f"teacher.model={teacher}",
        "teacher.k=2",
        "source=taco",
        "max_prompt_tokens=200",
        "max_tokens=16",
        "sft.epochs=3",
        "sft.batch_size=4",
        "score.n=1",
        "overrides=[data.max_length=400]",
    ]
    tracker = output / "training/checkpoints/latest_checkpointed_iteration.txt"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        deadline = time.monotonic() + scale_deadline(300)
        while not tracker.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        text = process.communicate(timeout=120)[0].decode()
        assert process.returncode == 130, text[-3000:]
    reached = int(tracker.read_text())
    assert 0 < reached < 12
    done = subprocess.run(command, capture_output=True, text=True, timeout=scale_deadline(300))
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert f"training to update 12 from update {reached}" in " ".join(done.stdout.split())
    report = json.loads((output / "report.json").read_text())
    assert report["answers"]["right"] == report["answers"]["chosen"] == 16
    assert report["answers"]["answers"] == 32 and report["updates"] == 12
    assert report["gain"]["problems"] == 2
    steps = [
        json.loads(line)["step"]
        for line in (output / "training/metrics.jsonl").read_text().splitlines()
    ]
    assert steps[-1] == 12 and set(steps) == set(range(1, 13))
