"""The error that readers raise."""


class BadRow(ValueError):
    """A row does not have the format that its source publishes; the message names the field."""
