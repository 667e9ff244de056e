"""Training in stages: their settings, the checks before a run, and the runner."""
