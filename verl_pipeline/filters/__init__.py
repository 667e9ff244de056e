"""Batch filters: what happens to trajectories between reward and advantage.

A third party adds one by class path in ``trainer.v1.one_off_pipeline.filters``.
"""

from verl_pipeline.filters.infrastructure import InfrastructureFilter
from verl_pipeline.filters.protocol import BatchView, Decision, Filter
from verl_pipeline.filters.registry import load_filters, register_filter

__all__ = ["BatchView", "Decision", "Filter", "InfrastructureFilter", "load_filters", "register_filter"]
