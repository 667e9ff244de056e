"""Runs with real engines."""
