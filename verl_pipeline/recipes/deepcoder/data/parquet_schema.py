"""Parquet files of prepared data: verl's schema, and metadata with the version of the recipe.

Invariants:
* The bytes of a file depend only on its rows, the hash of the settings and the version of pyarrow.
* A file appears under its name by one rename, so it is complete or absent.
* A file that another version of the recipe wrote is refused; a file that the recipe did not write
  is accepted.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from verl_pipeline.errors import UserError
from verl_pipeline.input_files import check_file
from verl_pipeline.outputs.files import replace_file

# Raise it whenever the meaning of a row changes, even if the columns stay the same.
SCHEMA_VERSION: int = 1
# Key of the recipe's metadata in the footer of a parquet file.
METADATA_KEY = b"verl_pipeline.deepcoder"

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
            # Tests of all rows together can exceed the 2 GiB that 32-bit offsets can address.
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


class SchemaVersionError(UserError):
    """Another version of the recipe wrote the file."""


class ParquetFileError(UserError):
    """verl cannot train on the file; the message says what is missing."""


def write_parquet(rows: Sequence[Mapping[str, Any]], path: Path, config_hash: str) -> None:
    """Write ``rows``, which have the fields of :data:`SCHEMA`, by one rename.

    Args:
        rows: the rows.
        path: the file.
        config_hash: hash of the settings that produced the rows, stored in the metadata.

    Raises:
        OutputError: the file cannot be written.
        pyarrow.ArrowInvalid: a value does not have the type of its column.
    """
    metadata = json.dumps({"schema_version": SCHEMA_VERSION, "config": config_hash})
    table = pyarrow.Table.from_pylist(
        list(rows), schema=SCHEMA.with_metadata({METADATA_KEY: metadata.encode()})
    )
    with replace_file(path) as file:
        pyarrow.parquet.write_table(table, file, compression="zstd")


def check_parquet(path: Path) -> str | None:
    """Check, from its footer alone, that verl can train on a file.

    Returns:
        None, or a note if the recipe did not write the file: users may bring their own.

    Raises:
        InputError: what stands there cannot be read.
        ParquetFileError: the file does not exist, is not a parquet file, or lacks columns.
        SchemaVersionError: another version of the recipe wrote it.
    """
    if not os.path.lexists(path):
        raise ParquetFileError(
            f"{path}: no such file; python -m verl_pipeline.recipes.deepcoder.prepare writes one"
        )
    check_file(path)
    try:
        schema = pyarrow.parquet.read_schema(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise ParquetFileError(
            f"{path}: not a parquet file; "
            "python -m verl_pipeline.recipes.deepcoder.prepare writes one"
        ) from error
    metadata = (schema.metadata or {}).get(METADATA_KEY)
    if metadata is not None:
        _check_version(_read_version(metadata, path), path)
    if missing := [name for name in COLUMNS if name not in schema.names]:
        raise ParquetFileError(
            f"{path}: no column {', '.join(missing)}; verl needs the columns {', '.join(COLUMNS)} "
            "(python -m verl_pipeline.recipes.deepcoder.prepare writes them)"
        )
    if metadata is None:
        return f"{path} was not written by the recipe, so it is unknown how its rows were prepared"
    return None


def _check_version(version: int, path: Path) -> None:
    if version == SCHEMA_VERSION:
        return
    advice = "run prepare again"
    if version > SCHEMA_VERSION:
        advice = f"update the recipe, or {advice}"
    raise SchemaVersionError(
        f"{path} was written by version {version} of the recipe, this is {SCHEMA_VERSION}: {advice}"
    )


def _read_version(metadata: bytes, path: Path) -> int:
    try:
        return int(json.loads(metadata)["schema_version"])
    except (ValueError, TypeError, KeyError) as error:
        raise ParquetFileError(
            f"{path}: its metadata {METADATA_KEY.decode()} cannot be read ({error!r}); run prepare "
            "again"
        ) from error
