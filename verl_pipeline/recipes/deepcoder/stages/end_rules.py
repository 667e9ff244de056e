"""Decides when a stage ends, from its rules, steps and metrics alone.

Invariants:
* Only steps of the stage itself count. A rule decides nothing before the stage has trained as many
  steps as its windows need.
* A step whose metrics were lost in a kill is left out of the mean of its window. A window without
  any metrics decides nothing.
"""

from verl_pipeline.number_formats import format_decimal
from verl_pipeline.recipes.deepcoder.stages.stage_config import (
    TRUNCATED_SHARE_METRIC,
    MetricsByStep,
    StageConfig,
)


def find_end_reason(
    stage: StageConfig, metrics: MetricsByStep, first_step: int, step: int
) -> str | None:
    """Return why the stage ends with the checkpoint of ``step``, or None if it continues.

    Args:
        stage: the stage.
        metrics: metrics by global step.
        first_step: number of global steps before the stage.
        step: global step of a complete checkpoint.
    """
    if step >= stage.last_step:
        return f"last_step {stage.last_step}"
    share, plateau = stage.until.truncated_share, stage.until.plateau
    if share is not None:
        mean = _average_window(metrics, TRUNCATED_SHARE_METRIC, first_step, step, share.window)
        shown = "-" if mean is None else format_decimal(mean, 3)
        if mean is not None and share.above is not None and mean > share.above:
            return f"truncated_share {shown} above {share.above} (mean of {share.window} steps)"
        if mean is not None and share.below is not None and mean < share.below:
            return f"truncated_share {shown} below {share.below} (mean of {share.window} steps)"
    if plateau is not None:
        window = plateau.window
        now = _average_window(metrics, plateau.metric, first_step, step, window)
        before = _average_window(metrics, plateau.metric, first_step, step - window, window)
        if now is not None and before is not None and now - before < plateau.gain:
            return (
                f"plateau: {plateau.metric} {before:.4g} -> {now:.4g}, a gain below {plateau.gain} "
                f"(means of {window} steps)"
            )
    return None


def list_rule_metrics(stage: StageConfig) -> list[str]:
    """Return the metrics that the stage's rules read."""
    names = []
    if stage.until.truncated_share is not None:
        names.append(TRUNCATED_SHARE_METRIC)
    if stage.until.plateau is not None:
        names.append(stage.until.plateau.metric)
    return names


def _average_window(
    metrics: MetricsByStep, name: str, first_step: int, step: int, window: int
) -> float | None:
    """Return the mean over the ``window`` steps up to ``step``.

    Returns:
        None if the stage has not trained all of these steps, or if none has the metric.
    """
    if step - window < first_step:
        return None
    steps = range(step - window + 1, step + 1)
    values = [metrics[k][name] for k in steps if k in metrics and name in metrics[k]]
    return sum(values) / len(values) if values else None
