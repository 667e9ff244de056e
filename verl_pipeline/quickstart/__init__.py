"""The quickstart: a small model and small programming problems, prepared and trained on CPUs."""
