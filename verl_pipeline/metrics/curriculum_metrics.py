"""Metrics of the choice of prompts; logged with a selector only."""

from verl_pipeline.metrics.metric import Metric, Mode

_PIPELINE = (Mode.PIPELINE,)

CURRICULUM_METRICS = (
    Metric(
        "curriculum/signal_share",
        "share",
        "of the batch's groups with two or more graded members, those whose members did not all "
        "earn the same, so that they have a group-relative advantage; with a "
        "`curriculum.selector` only, as are all `curriculum/*`",
        _PIPELINE,
    ),
    Metric(
        "curriculum/signal_share/floor",
        "share",
        "the same among the prompts that the floor chose: about what `uniform` would have now",
        _PIPELINE,
    ),
    Metric(
        "curriculum/signal_share/selected",
        "share",
        "the same among the prompts that the selector chose",
        _PIPELINE,
    ),
    Metric("curriculum/pass_rate", "share", "mean of the groups' pass rates", _PIPELINE),
    Metric(
        "curriculum/predicted_pass_rate",
        "share",
        "the mean that the selector expected when it chose them",
        _PIPELINE,
    ),
    Metric(
        "curriculum/calibration_gap",
        "share",
        "mean distance of expected and seen pass rates in ten bins of the expected one, over the "
        "batches so far, older ones counting less",
        _PIPELINE,
    ),
    Metric(
        "curriculum/coverage",
        "share",
        "of the training set, what has been proposed at least once",
        _PIPELINE,
    ),
    Metric(
        "curriculum/effective_share",
        "share",
        "effective number of different prompts among all that were proposed, by the most there "
        "could be: 1 if none was preferred",
        _PIPELINE,
    ),
    Metric(
        "curriculum/longest_wait",
        "count",
        "batches since the prompt that has waited longest was in one",
        _PIPELINE,
    ),
)
