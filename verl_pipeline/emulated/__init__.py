"""A described cluster as processes that take its time: a clock, replicas, a trainer, rewards.

Invariants:
* No verl, Ray or torch here; :mod:`verl_pipeline.verl_adapter.emulated` gives them to verl.
* All costs are the planner's functions of the profile; nothing is computed a second time here.
"""
