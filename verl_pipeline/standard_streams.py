"""Standard streams of commands: closed, full, or in an encoding that lacks characters.

Invariants:
* The descriptors 0 to 2 are open before a command opens anything: no file of it gets the number of
  a closed stream, in which its children would write, or which they would close.
* If standard output refuses what a command prints (a full disk), one line says so, with exit code
  2; a reader that has gone (``| head``) is no error worth a line.
* A character that the encoding of standard output lacks is printed as its escape.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

EXIT_REFUSED, EXIT_NO_READER = 2, 1
_STREAMS = ("stdin", "stdout", "stderr")


@contextlib.contextmanager
def guard_streams() -> Iterator[None]:
    """Run a command inside, as the first thing that it does.

    Raises:
        SystemExit: standard output cannot be written.
    """
    open_streams()
    try:
        yield
        sys.stdout.flush()
    except SystemExit:
        _flush_or_exit()
        raise
    except OSError as error:
        exit_if_refused(error)
        raise


def exit_if_refused(cause: OSError | None = None) -> None:
    """End the program if standard output cannot be written, be it the reason of ``cause`` or not.

    Raises:
        SystemExit: it cannot.
    """
    reason = _try_output()
    if reason is None:
        return
    if isinstance(reason, BrokenPipeError):
        raise SystemExit(EXIT_NO_READER) from cause
    print(
        f"error: standard output cannot be written: {reason.strerror or reason}; files that the "
        "command had finished are intact, and the same command takes them up",
        file=sys.stderr,
    )
    raise SystemExit(EXIT_REFUSED) from cause


def _flush_or_exit() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        exit_if_refused(error)


def open_streams() -> None:
    """Open closed standard streams on nothing, and let standard output escape what it lacks."""
    for descriptor, name in enumerate(_STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free descriptor, which is this one: all below are open.
            os.open(os.devnull, os.O_RDWR)
        # None if it was closed when Python started; its number may be that of a file by now.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if descriptor else "r"))
    # A stream of tests or notebooks has no such method. In a fork whose parent had a file there and
    # which has a pipe, the method ends with an error after it has done its work.
    with contextlib.suppress(AttributeError, OSError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _try_output() -> OSError | None:
    """Return why standard output cannot be written, or None if it can.

    What it still holds is dropped if it cannot, or Python would try once more when it ends.
    """
    try:
        # Python drops the text of a write that failed, so an empty buffer proves nothing.
        os.write(sys.stdout.fileno(), b"\n")
    except OSError as error:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return error
    return None
