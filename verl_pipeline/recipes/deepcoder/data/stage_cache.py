"""Cache of the stages' results: a stage with the same settings and inputs does not run again.

    WORK/<stage>-<key>/kept.jsonl      records or decisions, one per line
    WORK/<stage>-<key>/removed.jsonl   removed rows with the reasons
    WORK/<stage>-<key>/done.json       written last: counts, settings, SHA-256 of kept.jsonl

The key is a hash of the stage's name, its version, its settings and the digest of its input.

Invariants:
* A stage is either complete on disk or absent: files appear by renames, ``done.json`` last.
* If a row was removed because this machine failed (:attr:`RemovedRow.is_transient`), the next call
  runs the stage again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_pipeline.evaluation.recorded_files import read_records
from verl_pipeline.outputs.files import replace_file, write_json
from verl_pipeline.recipes.deepcoder.data.problem_records import KeptRow, ProblemRecord, RemovedRow


@dataclass(frozen=True)
class StageResult:
    """The result of one stage.

    Attributes:
        stage: name of the stage.
        folder: folder of its files.
        digest: SHA-256 of ``kept.jsonl``.
        kept_count: number of rows that the stage kept.
        removed_count: number of rows that it removed.
        is_cached: an earlier call computed the result.
        is_complete: no row was removed because this machine failed.
    """

    stage: str
    folder: Path
    digest: str
    kept_count: int
    removed_count: int
    is_cached: bool
    is_complete: bool

    @property
    def kept_file(self) -> Path:
        """File of the kept records or decisions."""
        return self.folder / "kept.jsonl"

    def read_removals(self) -> Iterator[RemovedRow]:
        """Read the removed rows."""
        return map(RemovedRow.parse_json, read_records(self.folder / "removed.jsonl"))


def compute_key(*parts: Any) -> str:
    """Hash JSON values and dataclasses into 12 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, default=_convert_dataclass)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def run_stage(
    work: Path,
    stage: str,
    version: int,
    settings: Any,
    input_digest: Any,
    compute: Callable[[], Iterable[ProblemRecord | KeptRow | RemovedRow]],
) -> StageResult:
    """Return the stage's result from the cache in ``work``, or compute and store it.

    Args:
        work: folder of the cache.
        stage: name of the stage.
        version: version of the stage's code; raise it when the code changes the result.
        settings: settings that the result depends on.
        input_digest: digest of the stage's input.
        compute: yields the kept and the removed rows.
    """
    folder = work / f"{stage}-{compute_key(stage, version, settings, input_digest)}"
    marker = folder / "done.json"
    if marker.is_file() and (stored := json.loads(marker.read_text()))["complete"]:
        return StageResult(
            stage, folder, stored["digest"], stored["kept"], stored["removed"], True, True
        )
    marker.unlink(missing_ok=True)
    kept = removed = 0
    complete, digest = True, hashlib.sha256()
    with (
        replace_file(folder / "kept.jsonl") as kept_file,
        replace_file(folder / "removed.jsonl") as removed_file,
    ):
        for row in compute():
            if isinstance(row, RemovedRow):
                removed_file.write(_encode_line(row.to_json()))
                removed, complete = removed + 1, complete and not row.is_transient
            else:
                line = _encode_line(dataclasses.asdict(row))
                kept_file.write(line)
                digest.update(line)
                kept += 1
    write_json(
        marker,
        {
            "stage": stage,
            "version": version,
            "settings": _convert_to_json(settings),
            "given": input_digest,
            "kept": kept,
            "removed": removed,
            "digest": digest.hexdigest(),
            "complete": complete,
        },
    )
    return StageResult(stage, folder, digest.hexdigest(), kept, removed, False, complete)


def read_kept_fields(result: StageResult) -> dict[str, Mapping[str, Any]]:
    """Read what a stage after ingestion decided: for each kept id, the fields that it sets."""
    return {row["id"]: row["fields"] for row in read_records(result.kept_file)}


def _encode_line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row, default=_convert_dataclass) + "\n").encode()


def _convert_dataclass(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _convert_to_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=_convert_dataclass))
