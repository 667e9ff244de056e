"""Reads the rows of data files as users have them. A broken row does not stop the file.

Invariants:
* Rows come in the order of the file, one at a time, with their number counted from 1. Only
  ``.json`` (packed or not) and ``.arrow`` files are in memory as a whole.
* Downloaded data is never executed or unpickled.
"""

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from verl_pipeline.evaluation.data import (
    BadData,
    Row,
    check_data_file,
    list_rows,
    open_bytes,
    read_rows,
)
from verl_pipeline.grading.readers import BadRow
from verl_pipeline.grading.readers.row_values import describe_value, parse_json

# Rows of a parquet file that are in memory at a time; one row of LiveCodeBench can be megabytes.
_BATCH_ROWS = 32


def read_numbered_rows(path: Path) -> Iterator[tuple[int, Row | BadRow]]:
    """Yield the number of each row, with the row or with the reason why it cannot be read.

    Raises:
        BadData: the file does not have the format that its suffix says.
    """
    check_data_file(path)
    try:
        for number, row in enumerate(_read_values(path), 1):
            if isinstance(row, dict | BadRow):
                yield number, row
            else:
                yield number, BadRow(f"expected a JSON object, found {describe_value(row)}")
    except (OSError, EOFError, zlib.error, pyarrow.ArrowException) as error:
        raise BadData(f"{path}: {' '.join(str(error).split())}") from error


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_values(path: Path) -> Iterator[Any]:
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        with open_bytes(path) as file:
            for line in file:
                if line.strip():
                    yield _parse_json(line)
    elif path.name.endswith((".json", ".json.gz")):
        with open_bytes(path) as file:
            rows = _parse_json(file.read())
        if not isinstance(rows, list):
            found = rows if isinstance(rows, BadRow) else describe_value(rows)
            raise BadData(f"{path}: expected a list of rows, got {found}")
        yield from rows
    elif path.name.endswith(".parquet"):
        file = pyarrow.parquet.ParquetFile(path)
        for batch in file.iter_batches(_BATCH_ROWS):
            yield from list_rows(batch, file.schema_arrow)
    else:
        yield from read_rows(path)


def _parse_json(text: bytes) -> Any:
    try:
        return parse_json(text)
    except BadRow as error:
        return error
