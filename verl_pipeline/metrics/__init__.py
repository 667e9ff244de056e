"""What every logged metric means: one table, from which ``docs/metrics.md`` is written."""

from verl_pipeline.metrics.metric import Metric, Mode
from verl_pipeline.metrics.own_metrics import OWN_METRICS
from verl_pipeline.metrics.verl_metrics import VERL_METRICS

METRICS = (*OWN_METRICS, *VERL_METRICS)

__all__ = ["METRICS", "OWN_METRICS", "VERL_METRICS", "Metric", "Mode", "find_metric"]


def find_metric(name: str) -> Metric | None:
    """The table's entry for a logged name; None if there is none."""
    return next((metric for metric in METRICS if metric.matches(name)), None)
