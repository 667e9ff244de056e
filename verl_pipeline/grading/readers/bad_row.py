"""The errors that readers raise."""


class BadRow(ValueError):
    """A row does not have the format that its source publishes; the message names the field."""


class MissingFields(BadRow):
    """A row lacks what its source needs; the message names both."""
