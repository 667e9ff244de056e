"""What refuses an evaluation."""


class Refused(ValueError):
    """An evaluation that cannot be; the message says in one line why, and what to do."""
