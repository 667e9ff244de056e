"""Checks of a run's configuration, its files, models and machine, before anything starts."""
