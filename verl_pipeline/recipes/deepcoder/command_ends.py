"""How a command of the recipe ends when it cannot go on: a line for the user, and an exit code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from verl_pipeline.errors import UserError, show_line
from verl_pipeline.standard_streams import exit_if_refused


@contextmanager
def end_by_name(interrupted: str) -> Iterator[None]:
    """Inside, what the user can mend is a line and exit code 2, an interrupt exit code 130.

    Args:
        interrupted: what an interrupted command says.
    """
    # Imported here: --help need not wait for them.
    from verl_pipeline.quickstart.model import ModelUnavailableError
    from verl_pipeline.sandbox import SandboxError

    try:
        yield
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        raise typer.Exit(130) from None
    except (UserError, SandboxError, ModelUnavailableError, OSError) as error:
        if isinstance(error, OSError):
            exit_if_refused(error)
        print(f"error: {show_line(str(error))}", file=sys.stderr)
        raise typer.Exit(2) from error
