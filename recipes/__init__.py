"""Recipes: whole training runs with verl_pipeline, run from a checkout as ``python -m
recipes.<name>.<command>``.
"""
