"""What an evaluation keeps on disk: samples and verdicts, a line each, as they come.

    OUTPUT/model.json              whose samples these are
    OUTPUT/<task>/settings.json    how they were drawn, and of which data
    OUTPUT/<task>/problems.jsonl   what was asked
    OUTPUT/<task>/samples.jsonl    what was answered
    OUTPUT/<task>/verdicts.jsonl   how it was graded
    OUTPUT/<task>/failures.jsonl   requests that brought no answer; they are asked again

Invariants:
* Samples of one model, one way of asking and one version of the data only: anything else is
  refused, by name.
* A line is whole or it does not count: a cut-off last line is removed before the next is written.
* A sample is drawn once: what is stored is not asked for again.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.errors import Refused

Row = dict[str, Any]
Key = tuple[str, int]


class OtherRun(Refused):
    """The folder belongs to another model, or to other settings; the message says which."""


class Lines:
    """A file of JSON lines that is only ever added to."""

    def __init__(self, path: Path):
        if path.is_file():
            content = path.read_bytes()
            os.truncate(path, content.rfind(b"\n") + 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def add(self, row: Mapping[str, Any]) -> None:
        """Written through to the system: a killed process loses nothing of it."""
        self._file.write(json.dumps(row, ensure_ascii=True) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_lines(path: Path) -> Iterator[Row]:
    """Rows of a file of JSON lines, if it is there; a last line that was cut off is left out.

    Raises:
        OtherRun: another line is no JSON; the message has its number.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except ValueError as error:  # UnicodeDecodeError is one
                row = error
            if not isinstance(row, dict):
                raise OtherRun(
                    f"{path}:{number}: no JSON object ({row!r}); remove the line to have it made "
                    "anew"
                )
            yield row


def write_json(path: Path, content: Any) -> None:
    """As :func:`write_text`."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """As :func:`write_text`, a row a line."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    """By one rename: whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """While it lasts, no other process of this machine may enter; the lock ends with the process.

    Raises:
        OtherRun: another has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OtherRun(
                f"another evaluation is running in {folder}: wait for it, or choose another output"
            ) from None
        yield


def claim(path: Path, content: Mapping[str, Any], folders: Iterable[Path]) -> None:
    """Write ``content``; if there are samples in ``folders`` already, it must be what they were
    drawn with.

    Raises:
        OtherRun: it is not; the message names each field.
    """
    content = json.loads(json.dumps(content))
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
        raise OtherRun(
            f"{path.parent} holds samples, but {path.name} does not say whose ({error}): {advice}"
        ) from error
    names = sorted(before.keys() | content.keys())
    differences = [
        f"{name}: {before.get(name)!r} there, {content.get(name)!r} now"
        for name in names
        if before.get(name) != content.get(name)
    ]
    if differences:
        raise OtherRun(
            f"{path.parent} holds samples of another run ({'; '.join(differences)}): {advice}"
        )


class TaskStore:
    """Samples and verdicts of one task."""

    def __init__(self, folder: Path):
        self.samples = {_key(row): row for row in read_lines(folder / "samples.jsonl")}
        verdicts = {_key(row): row for row in read_lines(folder / "verdicts.jsonl")}
        # What could not be graded is graded again; the last verdict of a sample counts.
        self.verdicts = {key: row for key, row in verdicts.items() if row["reward"] is not None}
        self._files = {
            name: Lines(folder / f"{name}.jsonl") for name in ("samples", "verdicts", "failures")
        }

    def add_sample(self, row: Row) -> None:
        self._files["samples"].add(row)
        self.samples[_key(row)] = row

    def add_verdict(self, row: Row) -> None:
        self._files["verdicts"].add(row)
        self.verdicts[_key(row)] = row

    def add_failure(self, row: Row) -> None:
        self._files["failures"].add(row)

    def ungraded(self) -> list[Row]:
        """Samples without a verdict."""
        return [row for key, row in self.samples.items() if key not in self.verdicts]

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def _key(row: Row) -> Key:
    return str(row["id"]), int(row["sample"])
