"""Errors of writing, in the user's words."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from verl_pipeline.errors import UserError

_INTACT = "what was written before is intact"
_FULL = f"free some space and rerun the same command; {_INTACT}"
# What to do, by error number.
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: f"raise the limit of file sizes (ulimit -f) and rerun the same command; {_INTACT}",
}
_OTHER_PLACE = "choose an output that can be written"


class OutputError(UserError):
    """An output cannot be written, or is not the command's own; the message says why."""


@contextlib.contextmanager
def name_system_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` into an :class:`OutputError` that names ``path``.

    Only what writes belongs inside: an error of anything else would be blamed on ``path``.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(_describe_error(path, error)) from error


def refuse_tilde(path: Path) -> None:
    """Refuse to make a folder called ``~``: the home folder is meant (``output=~/out``).

    Raises:
        OutputError: ``path`` is in such a folder, and there is none yet.
    """
    if "~" not in path.parts:
        return
    above, below = path.parts[: path.parts.index("~") + 1], path.parts[path.parts.index("~") + 1 :]
    if not os.path.lexists(Path(*above)):
        meant = Path(os.path.expanduser("~"), *below)
        raise OutputError(f"{path}: ~ stands for itself within a word; write {meant}")


def _describe_error(path: Path, error: OSError) -> str:
    advice = _ADVICE.get(error.errno or 0, _OTHER_PLACE)
    reason = error.strerror or str(error)
    for parent in path.parents:
        if os.path.lexists(parent):
            if not parent.is_dir():
                reason = f"{parent} is not a folder"
            break
    return f"{path}: cannot be written: {reason}; {advice}"
