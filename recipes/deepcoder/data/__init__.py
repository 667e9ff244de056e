"""From raw problem sets to verified training data: one module a stage."""
