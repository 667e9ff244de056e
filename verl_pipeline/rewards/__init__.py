"""Reward functions for verl's reward loop."""
