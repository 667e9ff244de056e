"""What the stages have done, kept in ``work``: a stage whose settings and inputs are the same is
not run again.

    WORK/<stage>-<key>/kept.jsonl      records or decisions, a line each
    WORK/<stage>-<key>/removed.jsonl   what the stage removed, and why
    WORK/<stage>-<key>/done.json       written last: counts, settings, hash of kept.jsonl

The key is a hash of the stage's version, its settings and the hash of what it was given.

Invariants:
* A stage is done or not there: files appear by renames, ``done.json`` last.
* A stage whose outcome is that of a failing machine (:attr:`Removed.passing`) is run again by the
  next call.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.deepcoder.data.problem_records import Kept, Record, Removed
from verl_pipeline.evaluation.store import read_lines, write_json


@dataclass(frozen=True)
class Done:
    """A stage that is done.

    Attributes:
        digest: SHA-256 of what it keeps.
        cached: it was done before.
        complete: nothing of it depends on a failure of this machine.
    """

    stage: str
    folder: Path
    digest: str
    kept: int
    removed: int
    cached: bool
    complete: bool

    @property
    def file(self) -> Path:
        """What it keeps."""
        return self.folder / "kept.jsonl"

    def removals(self) -> Iterator[Removed]:
        """What it removed."""
        return (Removed(**row) for row in read_lines(self.folder / "removed.jsonl"))


def key_of(*parts: Any) -> str:
    """Hash of anything that JSON can say, 12 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def run_stage(
    work: Path,
    stage: str,
    version: int,
    settings: Any,
    given: Any,
    compute: Callable[[], Iterable[Record | Kept | Removed]],
) -> Done:
    """The stage's outcome, from ``work`` or from ``compute``.

    Args:
        version: of the stage's code; raised when its outcome changes.
        settings: that the outcome depends on.
        given: hash of what it is given.
    """
    folder = work / f"{stage}-{key_of(stage, version, settings, given)}"
    marker = folder / "done.json"
    if marker.is_file() and (done := json.loads(marker.read_text()))["complete"]:
        return Done(stage, folder, done["digest"], done["kept"], done["removed"], True, True)
    marker.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    kept = removed = 0
    complete, digest = True, hashlib.sha256()
    names = ("kept.jsonl", "removed.jsonl")
    scratch = [folder / f".{name}.{os.getpid()}" for name in names]
    try:
        with scratch[0].open("wb") as kept_file, scratch[1].open("wb") as removed_file:
            for outcome in compute():
                line = (json.dumps(dataclasses.asdict(outcome), default=_plain) + "\n").encode()
                if isinstance(outcome, Removed):
                    removed_file.write(line)
                    removed, complete = removed + 1, complete and not outcome.passing
                else:
                    kept_file.write(line)
                    digest.update(line)
                    kept += 1
        for path, name in zip(scratch, names, strict=True):
            path.replace(folder / name)
    finally:
        for path in scratch:
            path.unlink(missing_ok=True)
    counts = {"kept": kept, "removed": removed, "digest": digest.hexdigest(), "complete": complete}
    write_json(
        marker,
        {"stage": stage, "version": version, "settings": _json(settings), "given": given, **counts},
    )
    return Done(stage, folder, digest.hexdigest(), kept, removed, False, complete)


def decisions(done: Done) -> dict[str, Mapping[str, Any]]:
    """Of a stage after ingest: the ids it keeps, and the fields it sets."""
    return {row["id"]: row["fields"] for row in read_lines(done.file)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"no JSON: {type(value).__name__}")


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=_plain))
