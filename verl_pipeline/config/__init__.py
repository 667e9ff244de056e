"""Hydra configuration of ours."""
