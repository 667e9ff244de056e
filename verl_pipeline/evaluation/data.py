"""Finds a task's data: local files first, then an installed package, then the hub.

Invariants:
* If no data is found, the error lists every place that was searched and how to supply the data.
* Rows are plain dictionaries in the file's order; downloaded data is never executed or unpickled.
"""

import gzip
import importlib.util
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from verl_pipeline.errors import UserError
from verl_pipeline.grading.readers import BadRow
from verl_pipeline.grading.readers.row_values import describe_value, parse_json
from verl_pipeline.input_files import (
    InputError,
    check_file,
    check_json_lines,
    check_text_file,
    describe_damage,
)

FOLDER_VARIABLE = "VERL_PIPELINE_DATA"
SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet", ".arrow")

Row = dict[str, Any]


class DataNotFound(UserError):
    """A task's data was not found; the message lists the places searched and the fix."""


class BadData(UserError):
    """Data in an unexpected form; the message names the file."""


@dataclass(frozen=True)
class HubFiles:
    """Files of a data set on the Hugging Face hub: the repository and glob patterns."""

    repository: str
    patterns: tuple[str, ...]


@dataclass(frozen=True)
class PackageFile:
    """A data file in an installed distribution: ``path`` below the folder of ``module``."""

    distribution: str
    module: str
    path: str


@dataclass(frozen=True)
class DataFinder:
    """Searches the places where data may be.

    Attributes:
        folder: folder of local files; None: ``$VERL_PIPELINE_DATA``.
        hub: whether data may be downloaded from the hub.
    """

    folder: Path | None = None
    hub: bool = True

    def find_local_folder(self) -> Path | None:
        """Return the folder of local files, or None if none is configured.

        Raises:
            DataNotFound: the configured folder does not exist.
        """
        folder_name = os.environ.get(FOLDER_VARIABLE)
        folder = self.folder or (Path(folder_name) if folder_name else None)
        if folder is not None and not os.path.isdir(folder):
            raise DataNotFound(f"{folder}: no such folder; correct --data or ${FOLDER_VARIABLE}")
        return folder

    def find_rows(
        self,
        stems: Sequence[str],
        package: PackageFile | None = None,
        hub: HubFiles | None = None,
        parts: Sequence[str] = (),
    ) -> tuple[list[Row], str]:
        """Read the files of :meth:`find_files`; return their rows and their origin.

        Raises:
            DataNotFound: no data was found.
            BadData: a file does not have the format of its suffix.
        """
        files, origin = self.find_files(stems, package, hub, parts)
        return [row for file in files for row in read_rows(file)], origin

    def find_files(
        self,
        stems: Sequence[str],
        package: PackageFile | None = None,
        hub: HubFiles | None = None,
        parts: Sequence[str] = (),
    ) -> tuple[list[Path], str]:
        """Return the data's files and their origin, from the first place that has them.

        Args:
            stems: names of a local file without suffix (:data:`SUFFIXES`); the first existing file
                is used.
            package: distribution that may hold the file.
            hub: repository that may hold the files.
            parts: names, without suffix, of local files that form the data together; if all exist
                they take precedence over ``stems``.

        Raises:
            DataNotFound: no data was found.
        """
        searched: list[str] = []
        folder = self.find_local_folder()
        if folder is None:
            searched.append(f"no folder of local files (--data, ${FOLDER_VARIABLE})")
        else:
            part_files = [file for part in parts if (file := _find_local_file(folder, part))]
            single_files = [file for stem in stems if (file := _find_local_file(folder, stem))]
            has_all_parts = bool(parts) and len(part_files) == len(parts)
            if files := (part_files if has_all_parts else single_files[:1]):
                return files, ", ".join(map(str, files))
            searched.append(
                f"{folder}: none of {', '.join([*stems, *parts])} with a suffix of "
                f"{', '.join(SUFFIXES)}"
            )
        if package:
            spec = importlib.util.find_spec(package.module)
            path = Path(spec.origin).parent / package.path if spec and spec.origin else None
            if path and path.is_file():
                return [path], f"{package.distribution} {metadata.version(package.distribution)}"
            searched.append(
                f"package {package.distribution}: not installed (pip install "
                f"{package.distribution})"
            )
        if hub:
            if self.hub:
                try:
                    files, revision = _download_files(hub)
                    return files, f"hub: {hub.repository}@{revision}"
                # The hub client's exceptions have no common base class.
                except Exception as error:
                    searched.append(
                        f"hub {hub.repository}: {type(error).__name__}: {_get_first_line(error)}"
                    )
            else:
                searched.append(f"hub {hub.repository}: not searched (hub=false)")
        raise DataNotFound(
            f"no data found: {'; '.join(searched)}. Put {stems[0]}{SUFFIXES[0]} (or one of "
            f"{', '.join(SUFFIXES[1:])}) into a folder and name it with --data"
            + (f"; {hub.repository} publishes the file" if hub else "")
        )


def find_named_files(value: Any, setting: str) -> list[Path]:
    """Return the files that a setting names: a path, a pattern as in ``data.train_files``, or a
    list of them.

    Raises:
        DataNotFound: an entry names no file; the message begins with ``setting``.
    """
    from verl_pipeline.verl_adapter.checks import data_files

    files: list[Path] = []
    for entry in data_files.list_entries(value):
        path = Path(os.path.expanduser(str(entry).removeprefix("file://")))
        if os.path.isfile(path):  # read_rows reads more formats than verl
            files.append(path)
            continue
        try:
            found = data_files.find_data_files(entry)
        except data_files.DataFileError as error:
            raise DataNotFound(f"{setting}={error}") from error
        if not found:
            raise DataNotFound(f"{setting}={entry}: not on this machine; copy the file here")
        files += map(Path, found)
    return files


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of one file, in the format of its suffix.

    Raises:
        BadData: the file cannot be read or does not have that format; the message names the file
            and, for JSON lines, the line.
    """
    check_data_file(path)
    try:
        for number, row in enumerate(_parse_rows(path), 1):
            if not isinstance(row, dict):
                raise BadData(f"{path}:{number}: expected an object, found {describe_value(row)}")
            yield row
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise BadData(f"{path} cannot be read: {describe_damage(error)}") from error


def check_data_file(path: Path) -> None:
    """Check that a data file can be read, and that it is text if its suffix says so.

    Raises:
        BadData: it cannot, or is not.
    """
    check = {".jsonl": check_json_lines, ".json": check_text_file}.get(path.suffix, check_file)
    try:
        check(path)
    except InputError as error:
        raise BadData(str(error)) from error


def open_bytes(path: Path) -> BufferedIOBase:
    """Open a file for reading; one whose name ends in ``.gz`` is unpacked on the way."""
    return gzip.open(path) if path.name.endswith(".gz") else path.open("rb")


def _parse_rows(path: Path) -> Iterator[Any]:
    name = path.name
    if name.endswith((".jsonl", ".jsonl.gz")):
        # Bytes are split at newlines only, text at carriage returns too.
        with open_bytes(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _parse_json(line, f"{path}:{number}")
    elif name.endswith((".json", ".json.gz")):
        with open_bytes(path) as file:
            rows = _parse_json(file.read(), str(path))
        if not isinstance(rows, list):
            raise BadData(f"{path}: expected a list of rows, found {describe_value(rows)}")
        yield from rows
    else:
        table = _read_table(path)
        yield from list_rows(table, table.schema)


def list_rows(table: Any, schema: pyarrow.Schema) -> list[Row]:
    """Return the rows of a table or batch as ``datasets``, which verl uses, reads them.

    Where one column holds values of several types, ``datasets`` stores each value as JSON text and
    notes that in the metadata of the file.
    """
    rows = table.to_pylist()
    if b'"Json"' not in (schema.metadata or {}).get(b"huggingface", b""):
        return rows
    import datasets  # takes a second; few files need it

    features = datasets.Features.from_arrow_schema(schema)
    as_json = datasets.Features({key: one for key, one in features.items() if "Json(" in repr(one)})
    return [row | as_json.decode_example({key: row[key] for key in as_json}) for row in rows]


def _parse_json(text: bytes, location: str) -> Any:
    try:
        return parse_json(text)
    except BadRow as error:
        raise BadData(f"{location}: {error}") from error


def _read_table(path: Path) -> Any:
    if path.name.endswith(".parquet"):
        return pyarrow.parquet.read_table(path)
    with pyarrow.memory_map(str(path)) as source:
        try:
            return pyarrow.ipc.open_stream(source).read_all()
        except pyarrow.ArrowInvalid:
            return pyarrow.ipc.open_file(source).read_all()


def _find_local_file(folder: Path, stem: str) -> Path | None:
    return next(
        (file for suffix in SUFFIXES if (file := folder / f"{stem}{suffix}").exists()), None
    )


def _download_files(hub: HubFiles) -> tuple[list[Path], str]:
    import huggingface_hub

    root = Path(
        huggingface_hub.snapshot_download(
            hub.repository, repo_type="dataset", allow_patterns=list(hub.patterns)
        )
    )
    files = sorted(file for pattern in hub.patterns for file in root.glob(pattern))
    if not files:
        raise FileNotFoundError(f"no file matches {', '.join(hub.patterns)}")
    return files, root.name[:12]


def _get_first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:200]
