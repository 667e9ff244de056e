"""The commands that train the student: verl's SFT trainer, or the pipelined trainer with a teacher.

Invariants:
* SFT is verl's own ``verl.trainer.sft_trainer`` under torchrun, on CPUs and GPUs alike.
* On-policy distillation is ``verl_pipeline.main`` with verl's own ``distillation.*``: nothing here
  computes a loss.
* ``overrides`` of the user come last and win.
"""

import sys
from pathlib import Path

from verl_pipeline.recipes.deepcoder.distillation.distill_config import DistillConfig

CHECKPOINTS = "checkpoints"
# Whole models in Hugging Face's format, beside what a resumed training needs.
_CONTENTS = "[model,optimizer,extra,hf_model]"
# Updates between two checkpoints of on-policy distillation.
SAVE_STEPS = 4
_TEACHER = "distillation.teacher_models.teacher_model"


def build_sft_command(config: DistillConfig, student: str, rows: Path, folder: Path) -> list[str]:
    """Return the command of the SFT run, which resumes from ``folder/checkpoints``."""
    sft = config.sft
    overrides = [
        f"data.train_files={rows}",
        f"data.train_batch_size={sft.batch_size}",
        f"data.micro_batch_size_per_gpu={sft.micro_batch_size}",
        f"data.max_length={config.max_prompt_tokens + config.max_tokens}",
        "data.use_dynamic_bsz=False",
        "data.num_workers=0",
        f"model.path={student}",
        f"optim.lr={sft.lr}",
        f"checkpoint.save_contents={_CONTENTS}",
        f"trainer.device={config.device}",
        f"trainer.n_gpus_per_node={config.devices}",
        f"trainer.total_epochs={sft.epochs}",
        "trainer.save_freq=after_each_epoch",
        "trainer.max_ckpt_to_keep=1",
        "trainer.resume_mode=auto",
        f"trainer.seed={config.seed}",
        f"trainer.default_local_dir={folder / CHECKPOINTS}",
        "trainer.project_name=distillation",
        "trainer.experiment_name=sft",
        "trainer.logger=[console,file]",
    ]
    if config.device == "cpu":
        overrides += [
            "model.use_remove_padding=False",
            "model.enable_gradient_checkpointing=False",
            "+model.override_config.attn_implementation=sdpa",
            "engine.strategy=fsdp2",
            "engine.use_torch_compile=False",
            "engine.reshard_after_forward=False",
            "+engine.mixed_precision={param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}",
        ]
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={config.devices}",
        "-m",
        "verl.trainer.sft_trainer",
        *overrides,
        *config.overrides,
    ]


def build_on_policy_command(config: DistillConfig, student: str, folder: Path) -> list[str]:
    """Return the command of on-policy distillation, which resumes from ``folder/checkpoints``."""
    settings = config.on_policy
    actor, rollout, rewards = (
        "actor_rollout_ref.actor",
        "actor_rollout_ref.rollout",
        "reward.custom_reward_function",
    )
    data = Path(config.data).resolve()
    longest = config.max_prompt_tokens + config.max_tokens
    uses_advantage = settings.loss == "k1"
    overrides = [
        f"data.train_files={data / 'train.parquet'}",
        f"data.val_files={data / 'heldout.parquet'}",
        f"data.train_batch_size={settings.prompts}",
        f"data.max_prompt_length={config.max_prompt_tokens}",
        f"data.max_response_length={config.max_tokens}",
        f"data.seed={config.seed}",
        f"actor_rollout_ref.model.path={student}",
        f"{actor}.optim.lr={settings.lr}",
        f"{actor}.ppo_mini_batch_size={settings.prompts}",
        f"{actor}.ppo_micro_batch_size_per_gpu=8",
        f"{actor}.checkpoint.save_contents={_CONTENTS}",
        f"{rollout}.n={settings.n}",
        f"{rollout}.nnodes=1",
        f"{rollout}.n_gpus_per_node={settings.rollout_devices}",
        f"{rollout}.max_model_len={longest}",
        f"{rollout}.log_prob_micro_batch_size_per_gpu=8",
        "algorithm.adv_estimator=grpo",
        "algorithm.rollout_correction.bypass_mode=True",
        "trainer.v1.one_off_pipeline.correction=as_configured",
        f"trainer.v1.one_off_pipeline.staleness={settings.staleness}",
        f"{rewards}.path=pkg://verl_pipeline.rewards.code",
        f"{rewards}.name=compute_score",
        "distillation.enabled=True",
        f"distillation.n_gpus_per_node={settings.teacher_devices}",
        "distillation.nnodes=1",
        f"{_TEACHER}.model_path={config.teacher.model}",
        f"{_TEACHER}.inference.tensor_model_parallel_size=1",
        # One token more: the teacher must generate one to score the others.
        f"{_TEACHER}.inference.max_model_len={longest + 1}",
        f"distillation.distillation_loss.loss_mode={settings.loss}",
        f"distillation.distillation_loss.use_policy_gradient={uses_advantage}",
        f"distillation.distillation_loss.use_task_rewards={settings.task_reward}",
        f"distillation.distillation_loss.distillation_loss_coef={settings.coefficient}",
        f"trainer.n_gpus_per_node={config.devices}",
        f"trainer.total_training_steps={settings.steps}",
        f"trainer.total_epochs={settings.steps}",
        f"trainer.save_freq={SAVE_STEPS}",
        "trainer.max_actor_ckpt_to_keep=1",
        "trainer.resume_mode=auto",
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
        f"trainer.default_local_dir={folder / CHECKPOINTS}",
        "trainer.project_name=distillation",
        "trainer.experiment_name=on_policy",
        "trainer.logger=[console,file]",
    ]
    if config.source:
        overrides.append(f"+{rewards}.reward_kwargs.source={config.source}")
    if config.device == "cpu":
        overrides += [
            "+verl_pipeline=cpu",
            "data.dataloader_num_workers=0",
            "actor_rollout_ref.model.enable_gradient_checkpointing=False",
            f"{rollout}.max_num_seqs=64",
            f"{_TEACHER}.inference.max_num_seqs=64",
            # As the CPU overlay has them for the rollout pool.
            f"{_TEACHER}.inference.free_cache_engine=False",
            f"+{_TEACHER}.inference.enable_sleep_mode=False",
            f"+{_TEACHER}.inference.engine_kwargs.vllm.block_size=32",
        ]
    program = [sys.executable, "-u", "-m", "verl_pipeline.main"]
    return [*program, *overrides, *config.overrides]


def find_model(config: DistillConfig, folder: Path, step: int) -> Path:
    """Return the whole model that the checkpoint of ``step`` holds."""
    checkpoint = folder / CHECKPOINTS / f"global_step_{step}"
    return checkpoint / ("actor/huggingface" if config.method == "on_policy" else "huggingface")


def read_reached_step(folder: Path) -> int:
    """Return the step of the newest complete checkpoint; 0 if there is none."""
    tracker = folder / CHECKPOINTS / "latest_checkpointed_iteration.txt"
    try:
        return int(tracker.read_text())
    except (FileNotFoundError, ValueError):
        return 0


def set_ended_data_aside(folder: Path, step: int, epoch_steps: int) -> None:
    """Let an SFT run that resumes at an epoch's end begin the next epoch.

    verl keeps the data loader's position beside the weights. After an epoch that is the end of the
    data: a resumed run would find nothing in its next epoch and end an epoch early. Without the
    file verl begins the epoch anew, in the order that the sampler draws for it.
    """
    if step and step % epoch_steps == 0:
        for file in (folder / CHECKPOINTS / f"global_step_{step}").glob("data_*.pt"):
            file.rename(file.with_suffix(".ended"))
