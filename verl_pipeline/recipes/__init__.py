"""Whole training runs with verl_pipeline, run from a checkout.

Each command is a module: ``python -m verl_pipeline.recipes.<name>.<command>``.
"""
