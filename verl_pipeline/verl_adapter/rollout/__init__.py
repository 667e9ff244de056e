"""Rollout replicas, agent loops and what watches them."""
