"""Writes ``train.parquet`` and, if problems are held out, ``heldout.parquet``, for verl.

Invariants:
* Rows are in the order of the data sources in the settings, then in the order of their files;
  ``index`` numbers the rows of each parquet file.
* A file that already has the right content is not written again.
"""

import json
from pathlib import Path
from typing import Any

from verl_pipeline.outputs.files import write_json
from verl_pipeline.recipes.deepcoder.data.parquet_schema import SCHEMA_VERSION, write_parquet
from verl_pipeline.recipes.deepcoder.data.problem_records import ProblemRecord, RecordSet
from verl_pipeline.recipes.deepcoder.data.row_files import hash_file

SPLITS = ("train", "heldout")


def build_row(record: ProblemRecord, index: int) -> dict[str, Any]:
    """Build a row of :data:`verl_pipeline.recipes.deepcoder.data.parquet_schema.SCHEMA`."""
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


def write_splits(
    records: RecordSet, digest: str, output: Path, work: Path, config_hash: str
) -> tuple[dict[str, Any], bool]:
    """Write one parquet file per split, unless they are there already.

    Args:
        records: the records to write.
        digest: digest of the records.
        output: folder of the parquet files.
        work: folder of the stage cache.
        config_hash: hash of the settings, stored in the files.

    Returns:
        Number of rows and SHA-256 by file name, and whether the files were there already.
    """
    marker = work / "written.json"
    key = [SCHEMA_VERSION, digest, config_hash]
    previous = json.loads(marker.read_text()) if marker.is_file() else {}
    if previous.get("key") == key and all(
        _has_digest(output / name, file["sha256"]) for name, file in previous["files"].items()
    ):
        return previous["files"], True
    rows_by_split: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for record in records:
        rows = rows_by_split[record.split]
        rows.append(build_row(record, len(rows)))
    files: dict[str, Any] = {}
    for split, rows in rows_by_split.items():
        path = output / f"{split}.parquet"
        if rows:
            write_parquet(rows, path, config_hash)
            files[path.name] = {"rows": len(rows), "sha256": hash_file(path)}
        else:
            path.unlink(missing_ok=True)  # an earlier run may have held out problems
    write_json(marker, {"key": key, "files": files})
    return files, False


def _has_digest(path: Path, digest: str) -> bool:
    return path.is_file() and hash_file(path) == digest
