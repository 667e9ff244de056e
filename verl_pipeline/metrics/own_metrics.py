"""The metrics that only we log. None has a name of verl's."""

from verl_pipeline.metrics.curriculum_metrics import CURRICULUM_METRICS
from verl_pipeline.metrics.metric import OURS, TRAINERS, Metric, Mode
from verl_pipeline.metrics.off_policy_metrics import OFF_POLICY_METRICS

_PIPELINE = (Mode.PIPELINE,)
_WATCHER = (Mode.WATCHER,)
# With our entry point, verl's own modes too.
_RECORDED = TRAINERS
# With `+sync_filters=...`, verl's own trainer filters too.
_FILTERS = (*OURS, Mode.SYNC)

OWN_METRICS = (
    *OFF_POLICY_METRICS,
    *CURRICULUM_METRICS,
    Metric(
        "pipeline/batch/generating_s",
        "s",
        "from the submission of the batch that this step trains to the end of its last generation; "
        "at staleness 1 most of it lies in the step before",
        _PIPELINE,
    ),
    Metric(
        "pipeline/batch/complete_s",
        "s",
        "from the submission of that batch until its last trajectory was stored with its reward",
        _PIPELINE,
    ),
    Metric(
        "pipeline/busy/trainer",
        "share",
        "of the time since the step before ended, in which the trainer computed log-probs, values "
        "or updates",
        _RECORDED,
    ),
    Metric(
        "pipeline/busy/rollout",
        "share",
        "of that time, in which a rollout replica ran requests or had them frozen, mean over the "
        "replicas; read from their engines once a second, absent if these do not tell, or the step "
        "was shorter",
        _RECORDED,
    ),
    Metric(
        "pipeline/tail_s",
        "s",
        "from when 90 % of the batch's trajectories had been generated until all had; past the "
        "barrier later batches are generated meanwhile, and `pipeline/wait_s` is what it costs",
        _RECORDED,
    ),
    Metric(
        "pipeline/wait_s",
        "s",
        "of the time since the step before ended, in which the trainer waited for trajectories and "
        "their rewards; where the pools share devices, these generated meanwhile",
        _RECORDED,
    ),
    Metric(
        "pipeline/trained_tokens_per_s",
        "tokens/s",
        "response tokens of the batch, those that filters dropped included, by the time since the "
        "step before ended; of the whole run, not of one device",
        _RECORDED,
    ),
    Metric(
        "pipeline/timing_s/wait_rollout",
        "s",
        "the trainer waits until the rollout pool is idle, before it sends weights",
        _PIPELINE,
    ),
    Metric(
        "pipeline/timing_s/collect",
        "s",
        "takes a complete batch out of the store (`drained` at staleness 1); at staleness 0 and "
        "past the barrier `timing_s/gen` covers it, with the wait for the rest of the batch",
        _PIPELINE,
    ),
    Metric(
        "pipeline/timing_s/save_checkpoint/wait_rollout",
        "s",
        "the same wait before a checkpoint; part of `timing_s/step`",
        _PIPELINE,
    ),
    Metric(
        "pipeline/timing_s/testing/{wait_rollout,update_weights}",
        "s",
        "the same wait, and sending weights, before a validation; no part of `timing_s/step`",
        _PIPELINE,
    ),
    Metric(
        "pipeline/weight_sync/count",
        "count",
        "times that the rollout pool got weights; two in a step with a validation, and then the "
        "other `pipeline/weight_sync/*` are sums",
        _PIPELINE,
    ),
    Metric("pipeline/weight_sync/seconds", "s", "duration of these, on the driver", _PIPELINE),
    Metric(
        "pipeline/weight_sync/aborted_requests",
        "count",
        "requests that they interrupted, which no trajectory waits for; absent if the engine does "
        "not tell (only vLLM does)",
        _PIPELINE,
    ),
    Metric(
        "pipeline/weight_sync/bytes",
        "bytes",
        "sent to each replica (`gloo`, `nccl`, `nixl`)",
        _PIPELINE,
    ),
    Metric(
        "pipeline/weight_sync/tensors",
        "count",
        "sent to each replica (`gloo`, `nccl`, `nixl`)",
        _PIPELINE,
    ),
    Metric(
        "pipeline/checkpoint_engine/<figure>",
        "number",
        "what a weight engine of verl's reports of the last sync",
        _PIPELINE,
    ),
    Metric(
        "pipeline/weights/checked_tensors",
        "count",
        "tensors of the sync that brought this step's weights, held by every replica as the "
        "trainer sent them; 0 if none was compared",
        _PIPELINE,
    ),
    Metric(
        "pipeline/weights/unchecked_tensors",
        "count",
        "tensors of that sync that could not be compared though the comparison was due; absent if "
        "the weight engine does not tell what it sends",
        _PIPELINE,
    ),
    Metric(
        "pipeline/weights/compare_s",
        "s",
        "duration of the comparison after that sync, and of its announcement, on the driver; part "
        "of `timing_s/update_weights`",
        _PIPELINE,
    ),
    Metric(
        "pipeline/weights/log_prob_gap",
        "number",
        "mean of |log-prob of the trainer - log-prob of the replica| over tokens of this step's "
        "batch, both with the weights before the update; of the replica where it is largest; "
        "absent when it was not measured",
        _PIPELINE,
    ),
    Metric("pipeline/replicas/living", "count", "rollout replicas that take part", _PIPELINE),
    Metric(
        "pipeline/replicas/lost",
        "count",
        "of them, that died, hung, failed in a load or were too slow since the step before; past "
        "the barrier only",
        _PIPELINE,
    ),
    Metric(
        "pipeline/replicas/rejoined",
        "count",
        "that took part again, or for the first time, since then",
        _PIPELINE,
    ),
    Metric(
        "pipeline/replicas/resampled_trajectories",
        "count",
        "that these had begun and not finished, and that others sample again",
        _PIPELINE,
    ),
    Metric(
        "pipeline/infrastructure/missing",
        "count",
        "trajectories of the batch whose generation failed",
        _PIPELINE,
    ),
    Metric(
        "pipeline/infrastructure/verdicts",
        "count",
        "trajectories of the batch that no grader could judge",
        _PIPELINE,
    ),
    Metric(
        "pipeline/infrastructure/share",
        "share",
        "both, of the trajectories requested",
        _PIPELINE,
    ),
    Metric(
        "pipeline/validation/ungraded",
        "count",
        "validation samples that no grader could judge; in no mean of `val-*`",
        OURS,
    ),
    Metric(
        "pipeline/validation/version",
        "count",
        "updates that the validated weights had seen: the step whose validation this is",
        _PIPELINE,
    ),
    Metric(
        "pipeline/validation/missing",
        "count",
        "validation samples whose generation failed; verl counts each as an `acc` of 0",
        _PIPELINE,
    ),
    Metric(
        "pipeline/validation/values/<key>",
        "count",
        "validation samples whose value of this key is no finite number; in no mean of that key",
        OURS,
    ),
    Metric(
        "pipeline/validation/<grader>/verdict/<verdict>",
        "share",
        "of the validation samples that this grader judged",
        OURS,
    ),
    Metric(
        "reward/<grader>/{verdict,tier}/<value>",
        "share",
        "of the batch's trajectories that this grader judged, before the filters: by verdict, and "
        "by isolation tier",
        _PIPELINE,
    ),
    Metric(
        "reward/<grader>/<seconds>_s/{p50,p95}",
        "s",
        "quantiles over these trajectories; the code reward reports `queue_s` (wait for a slot), "
        "`grading_s` and `cpu_s`",
        _PIPELINE,
    ),
    Metric(
        "reward/<grader>/<figure>/{p50,p95}",
        "number",
        "the same of a grader's other figures; the code reward reports `busy` (programs at a time "
        "in one process) and `calibration` (slowness of the processor, 1: the reference)",
        _PIPELINE,
    ),
    Metric(
        "filters/{before,after}/trajectories",
        "count",
        "trajectories with a reward, and those of them that train: neither dropped nor zeroed",
        _FILTERS,
    ),
    Metric("filters/{before,after}/reward_mean", "number", "their mean reward", _FILTERS),
    Metric("filters/{before,after}/response_length_mean", "tokens", "their mean length", _FILTERS),
    Metric("filters/{before,after}/truncated_share", "share", "cut off at their limit", _FILTERS),
    Metric(
        "filters/no_reward/dropped",
        "count",
        "trajectories without a reward; dropped first",
        _FILTERS,
    ),
    Metric(
        "filters/lone_survivors",
        "count",
        "last members left of their groups: a group-relative advantage has no baseline for them",
        _FILTERS,
    ),
    Metric(
        "filters/skipped_update",
        "count",
        "1 if the filters left nothing to learn from, so that the step has no update; else 0",
        OURS,
    ),
    Metric(
        "filters/replaced_batches",
        "count",
        "batches that the filters emptied, each replaced by the next one",
        (Mode.SYNC,),
    ),
    Metric("filters/<filter>/dropped", "count", "trajectories that this filter dropped", _FILTERS),
    Metric(
        "filters/<filter>/zero_advantage",
        "count",
        "trajectories whose advantage it set to 0",
        _FILTERS,
    ),
    Metric(
        "filters/<filter>/share_of_tokens",
        "share",
        "response tokens of both, of what the filter saw",
        _FILTERS,
    ),
    Metric("filters/<filter>/reward_mean", "number", "mean reward of both", _FILTERS),
    Metric("filters/<filter>/response_length_mean", "tokens", "mean length of both", _FILTERS),
    Metric("eval/<task>/samples", "count", "samples of the evaluation", _WATCHER),
    Metric("eval/<task>/failed", "count", "samples without a response", _WATCHER),
    Metric("eval/<task>/mean_tokens", "tokens", "mean length of a response", _WATCHER),
    Metric("eval/<task>/truncated_share", "share", "samples cut off at their limit", _WATCHER),
    Metric(
        "eval/<task>/pass@1/{value,low,high}",
        "share",
        "pass@1, and its 95 % interval clustered by problem",
        _WATCHER,
    ),
    Metric(
        "eval/<task>/caveats/<kind>",
        "number",
        "1: the score has a caveat of this kind, which docs/evaluation/caveats.md explains",
        _WATCHER,
    ),
    Metric(
        "eval/<task>/mean_reward/{value,low,high}",
        "number",
        "mean of a training's own reward, if it differs from pass@1, and its 95 % interval over "
        "problems",
        _WATCHER,
    ),
)
