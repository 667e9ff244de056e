"""Our metrics of how old a batch is, and how far from the policy that trains on it."""

from verl_pipeline.metrics.metric import Metric, Mode

_PIPELINE = (Mode.PIPELINE,)

OFF_POLICY_METRICS = (
    Metric(
        "pipeline/staleness",
        "count",
        "updates between the oldest weights that sampled a token of this step's batch and those it "
        "updates",
        _PIPELINE,
    ),
    Metric(
        "pipeline/staleness/mean",
        "count",
        "the same, mean over the first and last token of each trajectory",
        _PIPELINE,
    ),
    Metric(
        "pipeline/staleness/dial",
        "count",
        "with `staleness=auto`: what it has chosen after this step for the batches to come",
        _PIPELINE,
    ),
    Metric(
        "pipeline/mixed_share",
        "share",
        "of the batch's trajectories, those whose tokens have several weight versions",
        _PIPELINE,
    ),
    Metric(
        "pipeline/correction/effective_share",
        "share",
        "effective sample size of the importance weights before truncation, of the tokens: "
        "`(sum w)^2 / (n sum w^2)`; absent if the run has no off-policy correction, and in bypass "
        "mode. verl's `rollout_corr/rollout_is_eff_sample_size` is that of the truncated weights",
        _PIPELINE,
    ),
    Metric(
        "pipeline/correction/effective_share/age_<age>",
        "share",
        "the same of the trajectories whose oldest token was sampled this many updates ago",
        _PIPELINE,
    ),
    Metric(
        "pipeline/correction/kl/age_<age>",
        "nats",
        "KL divergence of a token's policy that sampled from the trainer's before the update, mean "
        "over the tokens of these trajectories (`r - 1 - log r`)",
        _PIPELINE,
    ),
)
