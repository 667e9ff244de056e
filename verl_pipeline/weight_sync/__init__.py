"""Checkpoint engines of ours: how weights travel from the trainer's pool to the rollout pool."""
