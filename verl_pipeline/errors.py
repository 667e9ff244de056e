"""The base class of errors that the user can correct."""


class UserError(ValueError):
    """A mistake in settings, data or folders; the message is one line: cause, then next step."""
