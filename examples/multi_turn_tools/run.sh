#!/usr/bin/env bash
# GRPO with a tool on GSM8K: Qwen2.5-7B calls a calculator in up to five turns.
#
# Hardware: one node of 8 GPUs with 80 GB; 4 train with FSDP2, 4 sample with vLLM.
# verl's tool agent loop runs the calls; tools.py beside this script has the tool.
#
# Not run on a GPU yet. Check the command first; nothing is started:
#     bash examples/multi_turn_tools/run.sh --check
#
# MODEL, DATA and OUTPUT may be set in the environment; further overrides go at the end.
set -euo pipefail

MODEL=${MODEL:-Qwen/Qwen2.5-7B-Instruct}
DATA=${DATA:-$HOME/data/gsm8k}
OUTPUT=${OUTPUT:-$HOME/checkpoints/multi_turn_tools}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

python3 -m verl_pipeline.main \
    algorithm.adv_estimator=grpo \
    algorithm.use_kl_in_reward=False \
    data.train_files="$DATA/train.parquet" \
    data.val_files="$DATA/test.parquet" \
    data.train_batch_size=256 \
    data.max_prompt_length=1024 \
    data.max_response_length=2048 \
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
    actor_rollout_ref.rollout.n_gpus_per_node=4 \
    actor_rollout_ref.rollout.agent.default_agent_loop=tool_agent \
    actor_rollout_ref.rollout.multi_turn.enable=True \
    actor_rollout_ref.rollout.multi_turn.format=hermes \
    actor_rollout_ref.rollout.multi_turn.max_assistant_turns=5 \
    actor_rollout_ref.rollout.multi_turn.max_user_turns=5 \
    actor_rollout_ref.rollout.multi_turn.function_tool_path="$HERE/tools.py" \
    trainer.nnodes=1 \
    trainer.n_gpus_per_node=4 \
    trainer.logger='[console]' \
    trainer.project_name=verl_pipeline_examples \
    trainer.experiment_name=multi_turn_tools \
    trainer.default_local_dir="$OUTPUT" \
    trainer.save_freq=20 \
    trainer.max_actor_ckpt_to_keep=2 \
    trainer.test_freq=5 \
    trainer.total_epochs=15 \
    "$@"
