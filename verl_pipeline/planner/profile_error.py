"""The error of a profile."""

from verl_pipeline.errors import UserError


class ProfileError(UserError):
    """A profile that cannot be simulated; one line: field, value, and what to do."""
