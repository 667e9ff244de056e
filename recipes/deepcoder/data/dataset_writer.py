"""The last stage: ``train.parquet`` and, with a held-out part, ``heldout.parquet``, in verl's
schema.

Invariants:
* Rows are in the order of the sources in the settings, then of their files; ``index`` counts them
  in each parquet file.
* Files that are there already, with the content they had, are not written again.
"""

import json
from pathlib import Path
from typing import Any

from recipes.deepcoder.data.parquet_schema import SCHEMA_VERSION, write_parquet
from recipes.deepcoder.data.problem_records import Record, Records
from recipes.deepcoder.data.row_files import sha256
from verl_pipeline.evaluation.store import write_json

SPLITS = ("train", "heldout")


def row_of(record: Record, index: int) -> dict[str, Any]:
    """A row of :data:`recipes.deepcoder.data.parquet_schema.SCHEMA`."""
    return {
        "data_source": record.reader,
        "prompt": [dict(message) for message in record.prompt],
        "ability": "code",
        "reward_model": {"style": "rule", "ground_truth": record.tests},
        "extra_info": {
            "index": index,
            "name": record.id,
            "source": record.source,
            "split": record.split,
            "difficulty": record.difficulty,
            "date": record.date,
            "tests": record.test_count,
            "prompt_tokens": record.prompt_tokens,
            "verified": record.verified,
            "multi_answer": record.multi_answer,
            "pass_rate": record.pass_rate,
            "origin": record.origin,
        },
    }


def write(
    records: Records, digest: str, output: Path, work: Path, config_hash: str
) -> tuple[dict[str, Any], bool]:
    """Write the records' rows.

    Args:
        digest: of the records.
        config_hash: kept in the files.

    Returns:
        By file name: rows and SHA-256; and whether they were there already.
    """
    marker = work / "written.json"
    key = [SCHEMA_VERSION, digest, config_hash]
    before = json.loads(marker.read_text()) if marker.is_file() else {}
    if before.get("key") == key and all(
        _is(output / name, file) for name, file in before["files"].items()
    ):
        return before["files"], True
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for record in records:
        rows[record.split].append(row_of(record, len(rows[record.split])))
    written: dict[str, Any] = {}
    for split, found in rows.items():
        path = output / f"{split}.parquet"
        if found:
            write_parquet(found, path, config_hash)
            written[path.name] = {"rows": len(found), "sha256": sha256(path)}
        else:
            path.unlink(missing_ok=True)  # of an earlier run with a held-out part
    write_json(marker, {"key": key, "files": written})
    return written, False


def _is(path: Path, file: dict[str, Any]) -> bool:
    return path.is_file() and sha256(path) == file["sha256"]
