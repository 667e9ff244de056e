"""Gives :mod:`verl_pipeline.emulated` to verl: a rollout replica, its weights' receiver, a training
engine, a router. All else of a run is verl's and ours.
"""
