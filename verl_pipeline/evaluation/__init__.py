"""Model evaluation: tasks, generation engines, grading, statistics and reports."""
