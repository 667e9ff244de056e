"""The prepared data: parquet files in verl's schema, with a mark that says which version of the
recipe wrote them.

Invariants:
* The bytes of a file follow from its rows, the hash of the settings and the version of pyarrow,
  from nothing else.
* A file appears under its name by one rename, whole or not at all.
* A file that another version of the recipe wrote is refused; one that the recipe did not write is
  not.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from verl_pipeline.evaluation.errors import Refused

# Raised whenever a row's meaning changes, not only its columns.
SCHEMA_VERSION: int = 1
MARK = b"verl_pipeline.deepcoder"

SCHEMA = pyarrow.schema(
    [
        ("data_source", pyarrow.string()),
        (
            "prompt",
            pyarrow.list_(
                pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
            ),
        ),
        ("ability", pyarrow.string()),
        (
            "reward_model",
            pyarrow.struct([("style", pyarrow.string()), ("ground_truth", pyarrow.large_string())]),
        ),
        (
            "extra_info",
            pyarrow.struct(
                [
                    ("index", pyarrow.int64()),
                    ("name", pyarrow.string()),
                    ("source", pyarrow.string()),
                    ("split", pyarrow.string()),
                    ("difficulty", pyarrow.string()),
                    ("date", pyarrow.string()),
                    ("tests", pyarrow.int64()),
                    ("prompt_tokens", pyarrow.int64()),
                    ("verified", pyarrow.bool_()),
                    ("multi_answer", pyarrow.bool_()),
                    ("pass_rate", pyarrow.float64()),
                    ("origin", pyarrow.string()),
                ]
            ),
        ),
    ]
)
COLUMNS = tuple(SCHEMA.names)


class OtherVersion(Refused):
    """A file that another version of the recipe wrote."""


class BadParquet(Refused):
    """A file that verl could not train on; the message says what it lacks."""


def write_parquet(rows: Sequence[Mapping[str, Any]], path: Path, config_hash: str) -> None:
    """Write ``rows``, which have the fields of :data:`SCHEMA`, atomically.

    Args:
        config_hash: of the settings that made the rows; kept in the file's mark.

    Raises:
        pyarrow.ArrowInvalid: a value is not of its column's type.
    """
    mark = json.dumps({"schema_version": SCHEMA_VERSION, "config": config_hash})
    table = pyarrow.Table.from_pylist(
        list(rows), schema=SCHEMA.with_metadata({MARK: mark.encode()})
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pyarrow.parquet.write_table(table, scratch, compression="zstd")
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def check_parquet(path: Path) -> str | None:
    """Whether verl can train on the file, as far as its footer tells.

    Returns:
        None, or a note where the file is not the recipe's: users may bring their own.

    Raises:
        BadParquet: no such file, no parquet, or columns are missing; they are named.
        OtherVersion: another version of the recipe wrote it.
    """
    if not path.is_file():
        raise BadParquet(f"{path}: no such file; python -m recipes.deepcoder.prepare makes one")
    try:
        schema = pyarrow.parquet.read_schema(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise BadParquet(f"{path}: no parquet file: {' '.join(str(error).split())}") from error
    text = (schema.metadata or {}).get(MARK)
    if text is not None:
        written = _version(text, path)
        if written != SCHEMA_VERSION:
            advice = (
                "run prepare again"
                if written < SCHEMA_VERSION
                else "update the recipe, or run prepare again"
            )
            raise OtherVersion(
                f"{path} was written by version {written} of the recipe, this is {SCHEMA_VERSION}: "
                f"{advice}"
            )
    if missing := [name for name in COLUMNS if name not in schema.names]:
        raise BadParquet(
            f"{path}: no column {', '.join(missing)}; verl's schema is needed: {', '.join(COLUMNS)}"
            " (python -m recipes.deepcoder.prepare writes it)"
        )
    return (
        None
        if text is not None
        else f"{path} was not written by the recipe: nothing is known of how it was made"
    )


def _version(mark: bytes, path: Path) -> int:
    try:
        return int(json.loads(mark)["schema_version"])
    except (ValueError, TypeError, KeyError) as error:
        raise BadParquet(
            f"{path}: its mark {MARK.decode()} cannot be read ({error!r}); run prepare again"
        ) from error
