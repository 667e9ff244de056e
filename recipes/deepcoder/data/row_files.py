"""Rows of data files as users have them: a broken row costs itself, not the file.

Invariants:
* Rows come in the file's order with their number from 1, one at a time; a file is never in memory
  as a whole but for ``.json`` and ``.arrow``.
* Nothing of downloaded data is executed or unpickled.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from verl_pipeline.evaluation.data import BadData, Row, read_rows
from verl_pipeline.grading.readers import BadRow

# Rows of a parquet file in memory at a time: rows of LiveCodeBench have megabytes.
_BATCH = 32


def numbered_rows(path: Path) -> Iterator[tuple[int, Row | BadRow]]:
    """Each row with its number, or why it is none.

    Raises:
        BadData: the file as a whole is not of the format its name says.
    """
    try:
        for number, row in enumerate(_values(path), 1):
            if isinstance(row, dict | BadRow):
                yield number, row
            else:
                yield number, BadRow(f"an object is expected, not {type(row).__name__}")
    except (OSError, EOFError, zlib.error, pyarrow.ArrowException) as error:
        raise BadData(f"{path}: {' '.join(str(error).split())}") from error


def sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _values(path: Path) -> Iterator[Any]:
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            for line in file:
                if line.strip():
                    yield _json(line)
    elif path.name.endswith(".json"):
        rows = _json(path.read_bytes())
        if not isinstance(rows, list):
            raise BadData(
                f"{path}: a list of rows is expected, not "
                f"{rows if isinstance(rows, BadRow) else type(rows)}"
            )
        yield from rows
    elif path.name.endswith(".parquet"):
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(_BATCH):
            yield from batch.to_pylist()
    else:
        yield from read_rows(path)


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:  # UnicodeDecodeError is one
        return BadRow(f"no JSON: {error}")
