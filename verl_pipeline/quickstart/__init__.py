"""The quickstart on real input: a small model, small programming problems, and how to get both."""
