"""The base class of errors that the user can correct, under the name that evaluations give it."""

from verl_pipeline.errors import UserError

__all__ = ["UserError"]
