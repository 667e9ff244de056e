"""The files of an evaluation; samples and verdicts are stored one per line, as they arrive.

    OUTPUT/model.json              the model that the samples belong to
    OUTPUT/<task>/settings.json    data and sampling parameters of the samples
    OUTPUT/<task>/problems.jsonl   prompts
    OUTPUT/<task>/samples.jsonl    responses
    OUTPUT/<task>/verdicts.jsonl   verdicts
    OUTPUT/<task>/failures.jsonl   failed requests; the next call repeats them

Invariants:
* A folder holds samples of one model, one set of sampling parameters and one version of the data;
  any difference is refused, and the error names it.
* Only whole lines count: a cut-off last line is removed before the next line is written.
* A sample is drawn once: stored samples are not requested again.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.errors import UserError

Row = dict[str, Any]
Key = tuple[str, int]


class StoreError(UserError):
    """The folder is in use, damaged, or holds samples of another model or other settings."""


class JsonLinesFile:
    """An append-only file of JSON lines."""

    def __init__(self, path: Path):
        if path.is_file():
            content = path.read_bytes()
            os.truncate(path, content.rfind(b"\n") + 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def append_row(self, row: Mapping[str, Any]) -> None:
        """Append one row and flush it, so that a killed process does not lose it."""
        self._file.write(json.dumps(row, ensure_ascii=True) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_lines(path: Path) -> Iterator[Row]:
    """Yield the rows of a JSON lines file; nothing if there is no file.

    A cut-off last line is skipped.

    Raises:
        StoreError: another line is not a JSON object; the message has its number.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except ValueError as error:  # covers UnicodeDecodeError
                row = error
            if not isinstance(row, dict):
                raise StoreError(
                    f"{path}:{number}: not a JSON object ({row!r}); remove the line, and the next "
                    "call recreates it"
                )
            yield row


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as JSON, atomically."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON line per row, atomically."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: by one rename, creating its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock ``folder`` against other processes of this machine; a dead process holds no lock.

    Raises:
        StoreError: another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"another evaluation is running in {folder}: wait for it, or choose another output"
            ) from None
        yield


def claim_folder(path: Path, content: Mapping[str, Any], folders: Iterable[Path]) -> None:
    """Record in ``path`` the settings that the samples in ``folders`` belong to.

    Without samples, ``content`` is written. With samples, it must equal the recorded content.

    Raises:
        StoreError: it differs; the message names each differing field.
    """
    content = json.loads(json.dumps(content))  # tuples become lists, as in the file
    if not any(
        (folder / "samples.jsonl").is_file() and (folder / "samples.jsonl").stat().st_size
        for folder in folders
    ):
        write_json(path, content)
        return
    advice = "choose another output, or remove that folder"
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{path.parent} holds samples, but {path.name} is unreadable, so their model and "
            f"settings are unknown ({error}): {advice}"
        ) from error
    names = sorted(before.keys() | content.keys())
    differences = [
        f"{name}: {before.get(name)!r} stored, {content.get(name)!r} now"
        for name in names
        if before.get(name) != content.get(name)
    ]
    if differences:
        raise StoreError(
            f"{path.parent} holds samples of another run ({'; '.join(differences)}): {advice}"
        )


class TaskStore:
    """The stored samples and verdicts of one task.

    Attributes:
        samples: rows of ``samples.jsonl`` by (problem id, sample number).
        verdicts: rows of ``verdicts.jsonl`` that have a reward, by the same key.
    """

    def __init__(self, folder: Path):
        self.samples = {_make_key(row): row for row in read_lines(folder / "samples.jsonl")}
        # A sample may have several verdicts, as failed gradings are repeated; the last one counts.
        verdicts = {_make_key(row): row for row in read_lines(folder / "verdicts.jsonl")}
        self.verdicts = {key: row for key, row in verdicts.items() if row["reward"] is not None}
        self._files = {
            name: JsonLinesFile(folder / f"{name}.jsonl")
            for name in ("samples", "verdicts", "failures")
        }

    def add_sample(self, row: Row) -> None:
        self._files["samples"].append_row(row)
        self.samples[_make_key(row)] = row

    def add_verdict(self, row: Row) -> None:
        self._files["verdicts"].append_row(row)
        self.verdicts[_make_key(row)] = row

    def add_failure(self, row: Row) -> None:
        self._files["failures"].append_row(row)

    def list_ungraded_samples(self) -> list[Row]:
        """Return the samples that have no verdict with a reward."""
        return [row for key, row in self.samples.items() if key not in self.verdicts]

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def _make_key(row: Row) -> Key:
    return str(row["id"]), int(row["sample"])
