"""The pipelined trainer: schedule, its mapping onto verl's hooks, replay buffer, rollout pool,
configuration.
"""
