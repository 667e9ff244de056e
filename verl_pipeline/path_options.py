"""Options and arguments of commands that name a file or folder.

Invariant: an empty text is refused. ``Path("")`` is the current folder, which nobody means by it:
most often a variable of the shell is not set.
"""

from pathlib import Path
from typing import Any

import typer

EMPTY = "is empty; name a file or folder, the current one as ."


def path_option(*names: str, help: str, **details: Any) -> Any:
    """Return what ``typer.Option`` returns, for an option whose value is a ``Path``."""
    return typer.Option(*names, help=help, parser=parse_path, metavar="PATH", **details)


def path_argument(*, help: str) -> Any:
    """Return what ``typer.Argument`` returns, for an argument whose value is a ``Path``."""
    return typer.Argument(help=help, parser=parse_path)


def parse_path(text: str | Path) -> Path:
    """Return the path that a user gave, or the default.

    Raises:
        typer.BadParameter: the text is empty.
    """
    if not str(text):
        raise typer.BadParameter(EMPTY)
    return Path(text)
