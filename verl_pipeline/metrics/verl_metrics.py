"""verl's metrics (0.9.1, trainer v1): what each means in ``sync``, hence in our modes.

Invariant: our modes log none of these names with another meaning than ``sync``.
"""

from verl_pipeline.metrics.metric import STATISTICS, Metric, Mode

_NOT_PIPELINED = (Mode.FILTERED, Mode.SYNC)
_STOCK = (Mode.SYNC,)
_TRAINED = "over the rows that train: without those that filters dropped"
_LAG = "at staleness 1 it has the difference of one update in it"

_TIMES = (
    Metric(
        "timing_s/step",
        "s",
        "the whole step, with checkpoint and weight sync, without validation",
        ours="waits are inside: `pipeline/timing_s/*`",
    ),
    Metric(
        "timing_s/gen",
        "s",
        "the batch is generated and rewarded while the trainer waits",
        ours="logged at staleness 0 and past the barrier; else see `pipeline/timing_s/collect`",
    ),
    Metric("timing_s/reward", "s", "a colocated reward model scores the batch", _NOT_PIPELINED),
    Metric(
        "timing_s/old_log_prob",
        "s",
        "log-probs of the batch under the trainer's weights, importance weights and rejection",
    ),
    Metric("timing_s/ref", "s", "log-probs of the batch under the reference model"),
    Metric("timing_s/values", "s", "values of the batch under the critic"),
    Metric("timing_s/adv", "s", "advantages and returns"),
    Metric("timing_s/{update_actor,update_critic}", "s", "forward, backward and optimizer"),
    Metric(
        "timing_s/update_weights",
        "s",
        "the engines that sample get new weights, within the step",
        ours="one_off_pipeline sends those of the update before, at the start of a step, if the "
        "engines lack them",
    ),
    Metric(
        "timing_s/save_checkpoint",
        "s",
        "writes the checkpoint",
        ours="without the wait before it: `pipeline/timing_s/save_checkpoint/wait_rollout`",
    ),
    Metric(
        "timing_s/testing",
        "s",
        "validation; no part of `timing_s/step`",
        ours="without what comes before it: `pipeline/timing_s/testing/*`",
    ),
    Metric(
        "timing_per_token_ms/gen",
        "ms",
        "`timing_s/gen` for each response token generated",
        ours="tokens of dropped rows count; in `sync` with `+sync_filters` they do not",
    ),
    Metric(
        "timing_per_token_ms/{ref,values,adv,update_actor,update_critic}",
        "ms",
        "the timer for each token of prompts and responses in the (padded) batch",
    ),
)

_PERFORMANCE = (
    Metric(
        "perf/total_num_tokens",
        "tokens",
        "prompts and responses of the batch that trains",
        ours="without the rows that verl adds to fill a mini-batch; `sync` counts 128 for each",
    ),
    Metric("perf/time_per_step", "s", "`timing_s/step`"),
    Metric(
        "perf/throughput",
        "tokens/s",
        "`perf/total_num_tokens` for each second of `timing_s/step` and each device of the run",
        ours="devices of both pools; the prompts and responses that filters dropped do not count",
    ),
    Metric(
        "perf/mfu/{actor,critic}",
        "share",
        "floating-point operations of the update, of the peak of the devices that train",
    ),
    Metric(
        "{actor,critic}/perf/max_memory_{allocated,reserved}_gb",
        "GiB",
        "largest memory of torch on a trainer's device since the start",
    ),
    Metric("{actor,critic}/perf/cpu_memory_used_gb", "GiB", "used on the trainer's node, by all"),
    Metric(
        "global_seqlen/{min,max,mean,minmax_diff,balanced_min,balanced_max}",
        "tokens",
        "tokens for each trainer rank, before and after balancing, padding included",
    ),
)

_POLICY = (
    Metric("actor/{loss,pg_loss}", "number", "loss of the update, and its policy-gradient part"),
    Metric("actor/entropy", "nats", "mean entropy per token before the update"),
    Metric("actor/entropy_loss", "nats", "entropy per token during the update"),
    Metric("actor/{kl_loss,reward_kl_penalty}", "nats", "KL to the reference model"),
    Metric("actor/{kl_coef,reward_kl_penalty_coeff}", "number", "its coefficient"),
    Metric("actor/grad_norm", "number", "norm of the gradient before clipping"),
    Metric("{actor,critic}/lr", "number", "learning rate of the update"),
    Metric(
        "actor/{pg_clipfrac,pg_clipfrac_lower}",
        "share",
        "tokens whose loss PPO clipped (lower: dual clip)",
    ),
    Metric(
        "actor/ppo_kl",
        "nats",
        "KL from `old_log_prob` to the policy during the update",
        ours="with `bypass_mode`, old_log_prob are the sampler's, and " + _LAG,
    ),
    Metric("actor/<name>", "number", "of other losses of verl's; unchanged by us"),
    Metric("critic/vf_loss", "number", "loss of the critic"),
    Metric("critic/vf_clipfrac", "share", "values that the critic's loss clipped"),
    Metric("critic/vpred_mean", "number", "mean value during the update"),
    Metric("critic/{loss,grad_norm}", "number", "loss and gradient norm of the critic's update"),
    Metric(f"critic/values/{STATISTICS}", "number", "values of tokens before the update"),
    Metric(
        "critic/vf_explained_var", "number", "share of the returns' variance that values explain"
    ),
    Metric(f"critic/score/{STATISTICS}", "number", "reward of a response", ours=_TRAINED),
    Metric(
        f"critic/rewards/{STATISTICS}",
        "number",
        "the same, after a KL penalty if it is part of the reward",
        ours=_TRAINED,
    ),
    Metric(
        f"critic/advantages/{STATISTICS}",
        "number",
        "advantages of tokens",
        ours=_TRAINED + "; those that a filter set to 0 count as 0",
    ),
    Metric(
        f"critic/returns/{STATISTICS}",
        "number",
        "returns of tokens",
        ours=_TRAINED + "; a filter's zero is no part of them",
    ),
)

_BATCH = (
    Metric(f"prompt_length/{STATISTICS}", "tokens", "prompts", ours=_TRAINED),
    Metric(f"response_length/{STATISTICS}", "tokens", "responses", ours=_TRAINED),
    Metric(
        f"response_length_non_aborted/{STATISTICS}",
        "tokens",
        "responses that are not empty",
        ours=_TRAINED,
    ),
    Metric(
        "{prompt_length,response_length,response_length_non_aborted}/clip_ratio",
        "share",
        "rows as long as the longest of the batch (not: as the limit)",
        ours="`filters/before/truncated_share` counts what was cut off",
    ),
    Metric("response/aborted_ratio", "share", "rows whose response is empty", ours=_TRAINED),
    Metric(
        "{num_turns,training/num_turns}/" + STATISTICS, "count", "messages of a row", ours=_TRAINED
    ),
    Metric("training/global_step", "count", "the step: updates done, with this one"),
    Metric("training/epoch", "count", "pass over the data set, from 0"),
    Metric(
        f"training/off_policy/trajectory_spans/{STATISTICS}",
        "count",
        "weight versions that sampled one trajectory",
        ours="1, but for `in_flight`",
    ),
    Metric(
        "training/off_policy/{trajectory_staleness,trajectory_staleness_worst}/" + STATISTICS,
        "count",
        "updates between the weights that sampled a trajectory (last token, first token) and those "
        "that the step updates",
    ),
    Metric(
        "training/rollout_probs_diff_{mean,max,std}",
        "share",
        "difference of a token's probability between sampler and trainer",
        ours=_LAG,
    ),
    Metric("training/rollout_probs_diff_valid", "count", "1 if there are tokens to compare"),
    Metric(
        "training/rollout_actor_probs_pearson_corr",
        "number",
        "correlation of these probabilities",
        ours=_LAG,
    ),
    Metric(
        "training/{off_policy,filter_groups,rollout_failure}/<evicted>",
        "count",
        "groups that verl's replay buffer threw away",
        _NOT_PIPELINED,
    ),
    Metric(
        "validation/{off_policy,filter_groups,rollout_failure}/<evicted>",
        "count",
        "the same in a validation",
        _NOT_PIPELINED,
    ),
)

_CORRECTION = (
    Metric("rollout_corr/{kl,k3_kl}", "nats", "KL from the sampler to the trainer", ours=_LAG),
    Metric(
        "rollout_corr/{training,rollout}_{ppl,log_ppl}",
        "number",
        "perplexity of the responses under the trainer and under the sampler, and its logarithm",
    ),
    Metric(
        "rollout_corr/{log_ppl_diff,log_ppl_abs_diff,log_ppl_diff_max,log_ppl_diff_min,ppl_ratio}",
        "number",
        "trainer's perplexity against the sampler's",
        ours=_LAG,
    ),
    Metric("rollout_corr/{chi2_token,chi2_seq}", "number", "chi-square divergence", ours=_LAG),
    Metric(
        "rollout_corr/rollout_is_{mean,max,min,std,batch_norm_factor}",
        "number",
        "importance weights, after truncation",
        ours="staleness 1 has them by default, at token level",
    ),
    Metric("rollout_corr/rollout_is_eff_sample_size", "share", "effective, of all tokens"),
    Metric(
        "rollout_corr/rollout_is_{ratio_fraction_high,ratio_fraction_low,oob_ratio}",
        "share",
        "weights beyond the thresholds",
    ),
    Metric("rollout_corr/rollout_is_seq_{fraction_high,fraction_low}", "share", "of sequences"),
    Metric(
        "rollout_corr/rollout_is_seq_{mean,max,min,std,max_deviation}",
        "number",
        "mean weight of a sequence",
    ),
    Metric("rollout_corr/rollout_rs_<name>fraction", "share", "masked by rejection"),
    Metric("rollout_corr/rollout_rs_<name>", "number", "statistic that rejection looks at"),
)

_OTHER = (
    Metric(
        "val-core/<source>/{acc,reward}/{mean,maj,best}@<n>",
        "number",
        "the validation's main score by data source, at the largest n: `acc`, or the reward if "
        "there is no `acc`",
        ours="over prompts whose n samples all have a verdict",
    ),
    Metric(f"val-aux/num_turns/{STATISTICS}", "count", "messages of a validation sample"),
    Metric(
        "val-aux/<source>/<key>/{mean,std}@<n>",
        "number",
        "the same score at smaller n, and of each other number that the reward reports: mean and "
        "deviation over a prompt's n samples",
        ours="without `score` where it repeats `reward`; a grader's figures are not here",
    ),
    Metric(
        "val-aux/<source>/<key>/{best,worst,maj}@<n>/{mean,std}",
        "number",
        "the best, the worst and the majority's of n samples (bootstrap)",
    ),
    Metric("rollout/spec_accept_rate", "share", "drafted tokens that speculative decoding kept"),
    Metric("rollout/spec_accept_length", "tokens", "tokens for each of its steps"),
    Metric("rollout/moe/<name>", "number", "load balance of experts in responses"),
    Metric("distillation/<name>", "number", "on-policy distillation", _STOCK),
)

VERL_METRICS = (*_TIMES, *_PERFORMANCE, *_POLICY, *_BATCH, *_CORRECTION, *_OTHER)
