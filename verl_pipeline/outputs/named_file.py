"""A file that writes all or raises an error of ours; for logs it can be given to a process."""

import io
import os
from pathlib import Path
from typing import Any

from verl_pipeline.outputs.errors import name_system_errors


class NamedFile(io.FileIO):
    """An unbuffered file that writes completely, and whose errors name it.

    Args:
        path: the file.
        mode: as in ``open``; always binary.
        shown_path: the name in errors, if the user knows the file by another.

    Raises:
        OutputError: the file cannot be opened or written.
    """

    def __init__(self, path: Path, mode: str, shown_path: Path | None = None):
        self.path = shown_path or path
        with name_system_errors(self.path):
            super().__init__(path, mode)

    def write(self, data: Any) -> int:
        """Write all of ``data``, and return its size in bytes."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        with name_system_errors(self.path):
            while rest:
                rest = rest[super().write(rest) :]
        return size

    def save(self) -> None:
        """Wait until the content is on the disk: some file systems report only then that it is
        full."""
        with name_system_errors(self.path):
            os.fsync(self.fileno())
