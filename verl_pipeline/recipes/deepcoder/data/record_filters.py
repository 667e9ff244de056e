"""Stages that look at one record at a time: ``language``, ``tests`` and ``split``.

Invariant: the decision about a record depends on this record and the settings; for ``split`` also
on the ids of the other records.
"""

import hashlib
from collections.abc import Iterator

from verl_pipeline.evaluation.eval_settings import BadSetting
from verl_pipeline.recipes.deepcoder.data.preparation_config import SplitConfig, TestsConfig
from verl_pipeline.recipes.deepcoder.data.problem_records import (
    Decision,
    KeptRow,
    RecordSet,
    RemovedRow,
)

_PYTHON_NAMES = ("python", "python3", "py")


def filter_by_language(records: RecordSet) -> Iterator[Decision]:
    """Keep Python problems, and those whose source names no language."""
    for record in records:
        if record.language is None or record.language.casefold() in _PYTHON_NAMES:
            yield KeptRow(record.id, record.source)
        else:
            yield RemovedRow(record.id, record.source, "another language", record.language)


def filter_by_test_count(records: RecordSet, config: TestsConfig) -> Iterator[Decision]:
    """Keep problems with at least ``tests.min`` tests."""
    for record in records:
        if record.test_count >= config.min:
            yield KeptRow(record.id, record.source)
        else:
            reason = f"fewer than {config.min} tests"
            detail = f"{record.test_count} tests (tests.min)"
            yield RemovedRow(record.id, record.source, reason, detail)


def assign_splits(records: RecordSet, config: SplitConfig, seed: int) -> Iterator[Decision]:
    """Hold out the ``split.heldout`` records with the smallest hash of seed and id.

    Raises:
        BadSetting: no record would be left for training.
    """
    if config.heldout >= len(records):
        raise BadSetting(
            f"split.heldout={config.heldout}: only {len(records)} problems are left, so none would "
            "remain for training; set it lower"
        )

    def hash_id(record_id: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{record_id}".encode()).digest()

    heldout_ids = set(sorted(records.fields_by_id, key=hash_id)[: config.heldout])
    for record in records:
        split = "heldout" if record.id in heldout_ids else "train"
        yield KeptRow(record.id, record.source, {"split": split})
