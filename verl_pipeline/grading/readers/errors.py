"""What a reader raises."""


class BadRow(ValueError):
    """A row that is not what its source publishes; the message names the field."""
