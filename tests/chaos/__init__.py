"""Runs that are killed at random instants, on real engines (``make chaos``)."""
