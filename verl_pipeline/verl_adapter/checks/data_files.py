"""The files that a data setting of verl names, found as verl's own data set finds them.

Invariants:
* What ``RLHFDataset`` can read passes, and what it cannot read is refused
  (``tests/unit/verl_adapter/checks/test_data_files.py`` compares the two).
* Rows are not read, only the footers of parquet files: rows that verl cannot read, and remote
  files, are left to verl.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import ListConfig

from verl_pipeline.input_files import InputError, check_file, describe_damage

# The file names that RLHFDataset reads, with the format that it asks `datasets` for.
_FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "json"}


class DataFileError(ValueError):
    """A value that names no file that verl can read; the message has cause and next step."""


def list_entries(value: Any) -> list[Any]:
    """Return the entries of a setting such as ``data.train_files``: one path, or a list of them."""
    return list(value) if isinstance(value, list | ListConfig) else [value]


def check_data_files(value: Any, use_shm: bool = False) -> None:
    """Check the value of ``data.train_files`` or ``data.val_files``.

    Args:
        use_shm: ``data.use_shm``, with which verl first copies each file to shared memory.

    Raises:
        DataFileError: verl could not read it.
    """
    entries = list_entries(value)
    if not entries:
        raise DataFileError("no file; name at least one")
    schemas = []
    for entry in entries:
        files = find_data_files(entry)
        if use_shm and not os.path.isfile(entry):
            raise DataFileError(
                f"{entry}: data.use_shm=True copies single local files only; name them in a list, "
                "or set data.use_shm=False"
            )
        own_schemas = {file: _read_schema(file) for file in files if file.endswith(".parquet")}
        if files and not any(map(os.path.getsize, files)):
            raise DataFileError(f"{entry}: empty, which verl cannot read; leave it out")
        _check_same_columns(own_schemas)
        schemas += list(own_schemas.values())[:1]
    _check_alike(entries, schemas)


def find_data_files(entry: Any) -> list[str]:
    """Return the local files that one entry names, in verl's order; none for a remote entry.

    Raises:
        DataFileError: verl finds no file, or does not read such files.
    """
    if not isinstance(entry, str) or not entry:
        raise DataFileError(
            f"{entry!r} is no path; name a file, a pattern such as DIR/*.parquet, or a list of them"
        )
    suffix = next((suffix for suffix in _FORMATS if entry.endswith(suffix)), None)
    if suffix is None:
        folder = os.path.expanduser(entry.removeprefix("file://"))
        if os.path.isdir(folder):
            raise DataFileError(
                f"{entry}: a folder, and verl reads files; write {entry.rstrip('/')}/*.parquet"
            )
        advice = f"write {entry}.parquet" if entry.endswith("*") else "convert it"
        raise DataFileError(
            f"{entry}: verl reads files whose names end with {', '.join(_FORMATS)}; {advice}"
        )
    if "://" in entry and not entry.startswith("file://"):
        return []
    import datasets

    try:
        builder = datasets.load_dataset_builder(_FORMATS[suffix], data_files=entry)
        files = [str(file) for file in builder.config.data_files["train"]]
    except (OSError, ValueError) as error:
        raise DataFileError(f"{entry}: no such file; {_advise(entry)}") from error
    if not files:
        raise DataFileError(f"{entry}: no such file; {_advise(entry)}")
    return files


def _advise(entry: str) -> str:
    """Return the next step for an entry without files."""
    path = Path(entry.removeprefix("file://"))
    expanded_path = Path(os.path.expanduser(path))
    if expanded_path != path and list(expanded_path.parent.glob(path.name)):
        return f"verl does not expand ~: write {expanded_path}"
    expanded = os.path.expandvars(entry)
    if expanded != entry:
        return f"verl does not expand variables: write {expanded}"
    if os.path.isdir(path):
        return f"it is a folder, and verl reads files: write {entry}/*{path.suffix}"
    if os.path.exists(path):  # datasets takes its brackets for a pattern
        return "it exists, but its name reads as a pattern: rename it without * ? [ ]"
    if "," in entry:
        return f"several files are a list: write [{entry}]"
    if "{" in entry:
        return "patterns know * ? [ ] and no braces: name a list instead"
    return "correct the path"


def _read_schema(file: str) -> Any:
    """Return the columns of a parquet file: a ``pyarrow.Schema``."""
    import pyarrow
    import pyarrow.parquet

    try:
        check_file(Path(file))
        metadata = pyarrow.parquet.read_metadata(file)
    except InputError as error:
        raise DataFileError(str(error)) from error
    except (OSError, pyarrow.ArrowException) as error:
        raise DataFileError(
            f"{file}: not a readable parquet file ({describe_damage(error)}); write it again, or "
            "leave it out"
        ) from error
    if not metadata.num_rows:
        raise DataFileError(f"{file}: has no rows, which verl cannot read; leave it out")
    return metadata.schema.to_arrow_schema()


def _check_same_columns(schemas: Mapping[str, Any]) -> None:
    """The files of one pattern have the columns of the first; verl reads them as one table."""
    first = next(iter(schemas), "")
    for file, schema in schemas.items():
        if different := set(schema.names) ^ set(schemas[first].names):
            raise DataFileError(
                f"{file}: column {sorted(different)[0]} is not in all files of the pattern (see "
                f"{first}); give them the same columns, or name them in a list"
            )


def _check_alike(entries: Sequence[Any], schemas: Sequence[Any]) -> None:
    """A column that several entries have is of one type: verl concatenates the entries."""
    import datasets
    import pyarrow

    # Tables without rows would be left out of the comparison.
    tables = [pyarrow.Table.from_pylist([{}], schema=schema) for schema in schemas]
    try:
        if tables:
            datasets.concatenate_datasets([datasets.Dataset(table) for table in tables])
    except ValueError as error:
        raise DataFileError(
            f"{', '.join(map(str, entries))}: the columns do not fit together "
            f"({' '.join(str(error).split())}); give them the same types"
        ) from error
