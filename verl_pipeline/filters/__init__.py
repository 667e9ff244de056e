"""Batch filters: what happens to trajectories between reward and advantage.

Add your own by class path in the list of filters, or by name with :func:`register_filter`.
"""

from verl_pipeline.filters.infrastructure import InfrastructureFilter
from verl_pipeline.filters.overlong import OverlongFilter
from verl_pipeline.filters.protocol import BatchView, Decision, Filter
from verl_pipeline.filters.registry import load_filters, register_filter
from verl_pipeline.filters.zero_variance import ZeroVarianceFilter

__all__ = [
    "BatchView",
    "Decision",
    "Filter",
    "InfrastructureFilter",
    "OverlongFilter",
    "ZeroVarianceFilter",
    "load_filters",
    "register_filter",
]
