#!/usr/bin/env bash
# GRPO with a reward model of your own: Qwen2.5-7B, FSDP2 trains, vLLM samples and judges.
#
# Hardware: one node of 8 GPUs with 80 GB; 4 train, 3 sample, 1 holds the reward model.
# The reward is the model's score of prompt and response; the data set's answers are not used.
#
# Not run on a GPU yet. Check the command first; nothing is started:
#     bash examples/reward_model/run.sh --check
#
# MODEL, DATA and OUTPUT may be set in the environment; further overrides go at the end.
set -euo pipefail

MODEL=${MODEL:-Qwen/Qwen2.5-7B-Instruct}
DATA=${DATA:-$HOME/data/gsm8k}
OUTPUT=${OUTPUT:-$HOME/checkpoints/reward_model}
REWARD_MODEL=${REWARD_MODEL:-Skywork/Skywork-Reward-V2-Qwen3-1.7B}

python3 -m verl_pipeline.main \
    algorithm.adv_estimator=grpo \
    algorithm.use_kl_in_reward=False \
    data.train_files="$DATA/train.parquet" \
    data.val_files="$DATA/test.parquet" \
    data.train_batch_size=256 \
    data.max_prompt_length=512 \
    data.max_response_length=1024 \
    data.filter_overlong_prompts=True \
    data.truncation=error \
    actor_rollout_ref.model.path="$MODEL" \
    actor_rollout_ref.model.use_remove_padding=True \
    actor_rollout_ref.model.enable_gradient_checkpointing=True \
    actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.ppo_mini_batch_size=128 \
    actor_rollout_ref.actor.use_dynamic_bsz=True \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192 \
    actor_rollout_ref.actor.use_kl_loss=True \
    actor_rollout_ref.actor.kl_loss_coef=0.001 \
    actor_rollout_ref.actor.kl_loss_type=low_var_kl \
    actor_rollout_ref.actor.entropy_coeff=0 \
    actor_rollout_ref.actor.strategy=fsdp2 \
    actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.85 \
    actor_rollout_ref.rollout.n=8 \
    actor_rollout_ref.rollout.nnodes=1 \
    actor_rollout_ref.rollout.n_gpus_per_node=3 \
    reward.reward_model.enable=True \
    reward.reward_model.enable_resource_pool=True \
    reward.reward_model.nnodes=1 \
    reward.reward_model.n_gpus_per_node=1 \
    reward.reward_model.model_path="$REWARD_MODEL" \
    reward.reward_model.rollout.name=vllm \
    reward.reward_model.rollout.tensor_model_parallel_size=1 \
    reward.reward_model.rollout.gpu_memory_utilization=0.8 \
    reward.reward_model.rollout.prompt_length=2048 \
    reward.reward_model.rollout.response_length=1024 \
    trainer.nnodes=1 \
    trainer.n_gpus_per_node=4 \
    trainer.logger='[console]' \
    trainer.project_name=verl_pipeline_examples \
    trainer.experiment_name=reward_model \
    trainer.default_local_dir="$OUTPUT" \
    trainer.save_freq=20 \
    trainer.max_actor_ckpt_to_keep=2 \
    trainer.test_freq=5 \
    trainer.total_epochs=15 \
    "$@"
