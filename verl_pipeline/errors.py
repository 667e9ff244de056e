"""The base classes of errors that the user can correct, and how an error is shown."""

# Of a message: more than any has to say, unless it repeats a value that the user gave.
MAX_CHARACTERS = 1500


class UserError(ValueError):
    """A mistake in settings, data or folders; the message is one line: cause, then next step."""


class SettingsError(ValueError):
    """Settings that cannot work.

    Args:
        lines: one for each: field, value, reason and fix. Whatever a value holds, it stays one.
    """

    def __init__(self, *lines: str):
        super().__init__(*lines)

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines as a terminal shows them."""
        return tuple(show_line(str(line)) for line in self.args)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def escape_controls(text: str) -> str:
    """Return text that a terminal shows as it is, with escapes for all other characters."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def show_line(text: str) -> str:
    """Return text as one line that a terminal shows as it is; the middle of a long one is cut."""
    line = escape_controls(text.replace("\n", " "))
    half = MAX_CHARACTERS // 2
    return line if len(line) <= MAX_CHARACTERS else f"{line[:half]} ... {line[-half:]}"
