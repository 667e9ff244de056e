"""verl's reward workers and scorers."""
