"""Runs harmless programs under the tests' own interpreter, without a sandbox, for comparison."""

import subprocess
import sys
from pathlib import Path

# Contest judges limit memory only.
WITH_UNLIMITED_STACK = ("/bin/sh", "-c", 'ulimit -S -s unlimited && exec "$@"', "sh")


def run_plainly(
    source: str, folder: Path, stdin: bytes = b"", wrapper: tuple[str, ...] = ()
) -> tuple[bytes, int, str]:
    """Run ``source`` in ``folder``; return its output, exit status and error messages.

    ``wrapper`` is a command that executes its arguments.
    """
    (folder / "solution.py").write_text(source)
    (folder / "stdin").write_bytes(stdin)
    with (
        open(folder / "stdin", "rb") as stdin_file,
        open(folder / "stdout", "wb") as stdout,
        open(folder / "stderr", "wb") as stderr,
    ):
        ended = subprocess.run(
            [*wrapper, sys.executable, "-I", "solution.py"],
            cwd=folder,
            stdin=stdin_file,
            stdout=stdout,
            stderr=stderr,
            timeout=60,
            check=False,
        )
    message = (folder / "stderr").read_text(errors="replace")
    return (folder / "stdout").read_bytes(), ended.returncode, message
