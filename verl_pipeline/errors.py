"""The base class of errors that the user can correct, and how an error is shown."""

# Of a message: more than any has to say, unless it repeats a value that the user gave.
MAX_CHARACTERS = 1500


class UserError(ValueError):
    """A mistake in settings, data or folders; the message is one line: cause, then next step."""


def escape_controls(text: str) -> str:
    """Return text that a terminal shows as it is, with escapes for all other characters."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def show_line(text: str) -> str:
    """Return text as one line that a terminal shows as it is; the middle of a long one is cut."""
    line = escape_controls(text.replace("\n", " "))
    half = MAX_CHARACTERS // 2
    return line if len(line) <= MAX_CHARACTERS else f"{line[:half]} ... {line[-half:]}"
