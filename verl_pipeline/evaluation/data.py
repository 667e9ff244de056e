"""Finds a task's data: local files first, then installed packages, then the hub.

Invariants:
* Where nothing is found, the error names every place that was looked at and what to put where.
* Rows are plain dictionaries, in the file's order; nothing of downloaded data is executed or
  unpickled.
"""

import gzip
import importlib.util
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from verl_pipeline.evaluation.errors import Refused

FOLDER_VARIABLE = "VERL_PIPELINE_DATA"
SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".parquet", ".arrow")

Row = dict[str, Any]


class DataNotFound(Refused):
    """A task's data is nowhere to be found; the message says where it was sought and what would do."""


class BadData(Refused):
    """Data that is not what it should be; the message names the file."""


@dataclass(frozen=True)
class Hub:
    """Files of a data set on the Hugging Face hub, as glob patterns."""

    repository: str
    patterns: tuple[str, ...]


@dataclass(frozen=True)
class Package:
    """A file that a registry package brings along: ``module`` and the path below its folder."""

    distribution: str
    module: str
    path: str


@dataclass(frozen=True)
class Finder:
    """Where data is sought.

    Attributes:
        folder: with local files; ``$VERL_PIPELINE_DATA`` if None.
        hub: whether the hub may be asked.
    """

    folder: Path | None = None
    hub: bool = True

    def local(self) -> Path | None:
        """The folder of local files, if one is named.

        Raises:
            DataNotFound: it does not exist.
        """
        named = os.environ.get(FOLDER_VARIABLE)
        folder = self.folder or (Path(named) if named else None)
        if folder is not None and not folder.is_dir():
            raise DataNotFound(f"{folder}: no such folder (--data, ${FOLDER_VARIABLE})")
        return folder

    def find(
        self,
        stems: Sequence[str],
        package: Package | None = None,
        hub: Hub | None = None,
        parts: Sequence[str] = (),
    ) -> tuple[list[Row], str]:
        """Rows of the files of :meth:`locate`, and where they come from.

        Raises:
            DataNotFound: nothing is found.
            BadData: a file is not of the format its name says.
        """
        files, origin = self.locate(stems, package, hub, parts)
        return _read_all(files), origin

    def locate(
        self,
        stems: Sequence[str],
        package: Package | None = None,
        hub: Hub | None = None,
        parts: Sequence[str] = (),
    ) -> tuple[list[Path], str]:
        """Files, and where they come from.

        Args:
            stems: names of local files without suffix (:data:`SUFFIXES`), the first that is there
                counts.
            parts: the same, of files that make the data together; they come before ``stems``.

        Raises:
            DataNotFound: nothing is found.
        """
        looked: list[str] = []
        folder = self.local()
        if folder is None:
            looked.append(f"no folder of local files (--data, ${FOLDER_VARIABLE})")
        else:
            together = [file for part in parts if (file := _local(folder, part))]
            alone = [file for stem in stems if (file := _local(folder, stem))]
            if found := (together if parts and len(together) == len(parts) else alone[:1]):
                return found, ", ".join(map(str, found))
            looked.append(
                f"{folder}: none of {', '.join([*stems, *parts])} with a suffix of "
                f"{', '.join(SUFFIXES)}"
            )
        if package:
            spec = importlib.util.find_spec(package.module)
            path = Path(spec.origin).parent / package.path if spec and spec.origin else None
            if path and path.is_file():
                return [path], f"{package.distribution} {metadata.version(package.distribution)}"
            looked.append(
                f"package {package.distribution}: not installed (pip install "
                f"{package.distribution})"
            )
        if hub:
            if self.hub:
                try:
                    files, revision = _download(hub)
                    return files, f"hub: {hub.repository}@{revision}"
                except (
                    Exception
                ) as error:  # the hub's client has no common base class; the cause is kept
                    looked.append(
                        f"hub {hub.repository}: {type(error).__name__}: {_first_line(error)}"
                    )
            else:
                looked.append(f"hub {hub.repository}: not asked (hub=false)")
        raise DataNotFound(
            f"no data: {'; '.join(looked)}. Put {stems[0]}{SUFFIXES[0]} (or one of "
            f"{', '.join(SUFFIXES[1:])}) into a folder and name it with --data"
            + (f"; it is what {hub.repository} publishes" if hub else "")
        )


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of one file, by its suffix.

    Raises:
        BadData: it cannot be read as that; the message has the file and, of JSON lines, the line.
    """
    try:
        for number, row in enumerate(_values(path), 1):
            if not isinstance(row, dict):
                raise BadData(f"{path}:{number}: an object is expected, not {type(row).__name__}")
            yield row
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise BadData(f"{path}: {error}") from error


def _values(path: Path) -> Iterator[Any]:
    name = path.name
    if name.endswith((".jsonl", ".jsonl.gz")):
        opened = (
            gzip.open(path, "rt", encoding="utf-8")
            if name.endswith(".gz")
            else path.open(encoding="utf-8")
        )
        with opened as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _json(line, f"{path}:{number}")
    elif name.endswith(".json"):
        rows = _json(path.read_text(encoding="utf-8"), str(path))
        if not isinstance(rows, list):
            raise BadData(f"{path}: a list of rows is expected, not {type(rows).__name__}")
        yield from rows
    else:
        yield from _table(path).to_pylist()


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadData(f"{where}: no JSON: {error}") from error


def _table(path: Path) -> Any:
    if path.name.endswith(".parquet"):
        return pyarrow.parquet.read_table(path)
    with pyarrow.memory_map(str(path)) as source:
        try:
            return pyarrow.ipc.open_stream(source).read_all()
        except pyarrow.ArrowInvalid:
            return pyarrow.ipc.open_file(source).read_all()


def _read_all(files: Sequence[Path]) -> list[Row]:
    return [row for file in files for row in read_rows(file)]


def _local(folder: Path, stem: str) -> Path | None:
    return next(
        (file for suffix in SUFFIXES if (file := folder / f"{stem}{suffix}").is_file()), None
    )


def _download(hub: Hub) -> tuple[list[Path], str]:
    import huggingface_hub

    root = Path(
        huggingface_hub.snapshot_download(
            hub.repository, repo_type="dataset", allow_patterns=list(hub.patterns)
        )
    )
    files = sorted(file for pattern in hub.patterns for file in root.glob(pattern))
    if not files:
        raise FileNotFoundError(f"no file of it matches {', '.join(hub.patterns)}")
    return files, root.name[:12]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:200]
